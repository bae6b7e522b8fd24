"""SIGKILL at random moments of a command that is then given again: the end has to be that of an undisturbed one.

Moments are seconds of the processor that the command has used, not of the clock, so that a busy machine changes
nothing. Each command is a process that is forked from one which has imported what takes long: it is killed at work.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from counterpart import checksums
from counterpart.cli import main as counterpart
from counterpart.records import Record, file_hash, read_rows
from counterpart.rundir import read_json

PRELOADED = (
    "fault_kills", "counterpart.papers", "counterpart.data.preparations", "sklearn.datasets", "torch._dynamo",
)  # fmt: skip
PAUSE = 0.001  # seconds between two looks at the time that a process has used
TOO_LONG = 300.0  # seconds after which a command hangs
UNREPEATABLE = ("seconds", "images_per_second", "peak_memory", "time", "command", "checksum")
SMALL = ["--device", "cpu", "--threads", "1"]
TRAIN = [
    "train", "digits/at", "--data.limit", "400", "--model.name", "wrn-10-1", "--model.width", "2", "--attack.steps",
    "2", "--train.epochs", "2", "--train.batch-size", "40", "--train.checkpoint-every", "0.02s",
    "--train.validation-n", "20", "--train.validation-steps", "1", "--name", "small", *SMALL,
]  # fmt: skip
EVALUATE = [
    "evaluate", "runs/small", "--n", "60", "--evaluate.chunk-size", "20", "--attacks", "[{steps: 2}, {steps: 10}]",
    *SMALL,
]  # fmt: skip
PREPARE = ["data", "prepare", "masks", "--source", "source", "--target", "target", "--workers", "1"]
PAPERS = [
    "papers", "run", "pixel/table-1", "--dataset", "digits", "--rows", "PART", "--columns", "natural,PGD-20", "--scale",
    "smoke", *SMALL,
]  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        words: its command line, in a folder of its own.
        kills: how often it is killed in the long form.
        set_out: fills the folder with what the command needs.
        stage: says by the folder how far a killed command had come.
    """

    words: Sequence[str]
    kills: int
    set_out: Callable[[Path], None]
    stage: Callable[[Path], str]


@dataclass
class Kills:
    """What became of a command that was killed again and again.

    Attributes:
        span: seconds of the processor after which it, undisturbed, has written its first file, and has ended.
        moments: when it was killed, in such seconds.
        stages: how far it had come, and how often.
        half_written: kills that left a file which was being written.
        differing: moments after which the end was another one, each with what differs.
    """

    span: tuple[float, float]
    moments: list[float] = field(default_factory=list)
    stages: Counter[str] = field(default_factory=Counter)
    half_written: int = 0
    differing: list[tuple[float, str]] = field(default_factory=list)


def measure(given: argparse.Namespace) -> list[Record]:
    """Kill every command at its number of moments."""
    return measure_each("kills", COMMANDS, given, count_kills)


def measure_each(
    part: str,
    commands: Mapping[str, Command],
    given: argparse.Namespace,
    count: Callable[[Command, Path, random.Random], tuple[int, int, dict[str, Any]]],
) -> list[Record]:
    """Try the faults of one part of the campaign with each command that is asked for.

    Args:
        part: its name in the records.
        commands: the commands that it has.
        given: the command line, with the seed and the names of commands.
        count: tries them with one command, in an empty folder, as is drawn. Returns how many did harm, how many were
            tried, and details.
    """
    records = []
    for name in asked_for(commands, given):
        with tempfile.TemporaryDirectory() as home:
            faults, tried, details = count(commands[name], Path(home), random.Random(f"{given.seed} {name}"))
        records.append(record_of(f"{part}/{name}", faults, tried, given.seed, details))
    return records


def asked_for(commands: Mapping[str, Command], given: argparse.Namespace) -> list[str]:
    """The commands of a part that are asked for: all of them where none is named."""
    return [name for name in commands if name in (given.command or commands)]


def record_of(title: str, faults: int, tried: int, seed: int, details: Mapping[str, Any]) -> Record:
    """The record of how many of the faults that were tried did harm, which is printed as well."""
    print(title, faults, "of", tried, details, flush=True)
    details = {"unit": "faults", "target": "0", **details}
    return Record("metric", f"faults/{title}", faults, tried, seed=seed, details=details)


def count_kills(command: Command, home: Path, drawn: random.Random) -> tuple[int, int, dict[str, Any]]:
    """Kill a command, and count the ends that differed."""
    kills = kill_again_and_again(command, home, drawn, command.kills)
    details = {
        "unit": "differences", "span": [round(end, 3) for end in kills.span],
        "moments": [round(moment, 3) for moment in kills.moments], "stages": dict(kills.stages),
        "left a half-written file": kills.half_written, "differing": kills.differing[:5],
    }  # fmt: skip
    return len(kills.differing), len(kills.moments), details


def kill_again_and_again(command: Command, home: Path, drawn: random.Random, count: int) -> Kills:
    """Kill a command at random moments, let it end when it is given again, and compare with an undisturbed one.

    Args:
        command: the command.
        home: an empty folder.
        drawn: draws the moments.
        count: how many kills, from the first file that the command writes to its end. A command that ended before its
            moment is not counted.
    """
    before, whole = home / "before", home / "whole"
    before.mkdir()
    command.set_out(before)
    shutil.copytree(before, whole)
    kills = Kills(span=complete(command.words, whole))
    wanted = content(whole)
    began, ended = kills.span
    while (number := len(kills.moments)) < count:
        # One moment in each of as many equal pieces of the span, so that none is left out by chance.
        share = (number + drawn.random()) / count
        folder, moment = home / "killed", began + share * (ended - began)
        shutil.copytree(before, folder)
        if is_killed_at(moment, command.words, folder):
            kills.moments.append(moment)
            kills.stages[command.stage(folder)] += 1
            kills.half_written += any(is_half_written(file) for file in folder.rglob(".*"))
            complete(command.words, folder)
            for difference in differences(wanted, content(folder))[:1]:
                kills.differing.append((moment, difference))
        shutil.rmtree(folder)
    return kills


def start(words: Sequence[str], folder: Path) -> BaseProcess:
    """Start a command in a folder, whose output goes into a file beside the folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=act, args=(list(words), str(folder)))
    process.start()
    return process


def act(words: list[str], folder: str) -> None:
    """Be the command."""
    become(folder)
    sys.exit(counterpart(words))


def become(folder: str) -> None:
    """Let this process work in a folder, and write what it says into a file beside the folder."""
    output = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)


def seconds_used(number: int | None) -> float | None:
    """Seconds of the processor that the process of a number has used; None where it has ended."""
    assert number is not None
    with suppress(OSError):
        return time.clock_gettime((~number << 3) | 2)  # the clock of a process, as Linux numbers it
    return None


def complete(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command to its end.

    Returns:
        The seconds of the processor that it had used when the first file was there, and in the end.
    """
    before, first, used, started = files_in(folder), 0.0, 0.0, time.monotonic()
    process = start(words, folder)
    while process.is_alive():
        used = seconds_used(process.pid) or used
        if first == 0.0 and files_in(folder) != before:
            first = used
        if time.monotonic() - started > TOO_LONG:
            process.kill()
        time.sleep(PAUSE)
    if process.exitcode != 0:
        said = folder.with_name(f"{folder.name}.log").read_text()
        raise RuntimeError(f"{' '.join(words)} ended with {process.exitcode}: {said[-2000:]}")
    return first, used


def files_in(folder: Path) -> set[str]:
    """The files of a folder that may change meanwhile, locks left out: they are taken before anything is done."""
    files = set()
    for place, _, names in os.walk(folder):
        files.update(f"{place}/{name}" for name in names if not name.endswith(".lock"))
    return files


def is_killed_at(moment: float, words: Sequence[str], folder: Path) -> bool:
    """Kill a command once it has used some seconds of the processor; False where it ended before."""
    process = start(words, folder)
    if reaches(process, moment):
        process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def reaches(process: BaseProcess, moment: float) -> bool:
    """Wait until a process has used some seconds of the processor; False where it ends before."""
    while process.is_alive():
        used = seconds_used(process.pid)
        if used is not None and used >= moment:
            return True
        time.sleep(PAUSE)
    return False


def is_half_written(file: Path) -> bool:
    """Whether a file is one that was being written when its process was killed."""
    return file.is_file() and file.suffix != ".lock"


def content(folder: Path) -> dict[str, Any]:
    """Every file of a folder by its path: texts without times, others as bytes; no logs, which only grow."""
    files: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name == "progress.log":
            continue
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            files[name] = repeatable(read_json(path))
        elif path.suffix == ".jsonl":
            files[name] = [row_of(path, row) for _, _, row in read_rows(path, "is damaged")]
        elif path.suffix == ".safetensors":
            files[name] = tensors_of(path)
        else:
            files[name] = path.read_bytes()
    return files


def row_of(path: Path, row: dict[str, Any]) -> Any:
    """A line of records without what cannot be repeated; instead of a file's SHA-256, whether the file has it."""
    details = row.get("details", {})
    if row.get("kind") == "artifact":
        file = path.parent / details["file"]
        row = {**row, "details": {**details, "sha256": file_hash(file) == details["sha256"]}}
    return repeatable(row)


def tensors_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header of a file of tensors and its data. The library writes what is said of a file in an order by chance."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"].pop(checksums.KEY_OF_TENSORS)
    return header, whole[8 + length :]


def repeatable(value: Any) -> Any:
    """A JSON value without what differs between two undisturbed commands."""
    if isinstance(value, dict):
        return {key: repeatable(item) for key, item in value.items() if key not in UNREPEATABLE}
    if isinstance(value, list):
        return [repeatable(item) for item in value]
    return value


def differences(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """The files in which two folders differ, and how."""
    clauses = [f"{name} is missing" for name in wanted if name not in there]
    clauses += [f"{name} is left over" for name in there if name not in wanted]
    for name in wanted.keys() & there.keys():
        if there[name] != wanted[name]:
            clauses.append(f"{name} is another")
    return sorted(clauses)


def nothing_before(folder: Path) -> None:
    """Set out from an empty folder."""


def train_before(folder: Path) -> None:
    """Set out from a trained run."""
    complete(TRAIN, folder)


def draw_before(folder: Path) -> None:
    """Set out from 48 photographs of two classes, their masks, and a table of names."""
    generator = np.random.default_rng(0)
    for number in range(48):
        name = Path("cat" if number % 2 else "dog") / f"{number:02d}"
        mask = np.zeros((60, 80), dtype=np.uint8)
        mask[4 : 20 + number % 8, 5:40], mask[3:30, 50:70] = 1, 2
        for kind, pixels in (("images", generator.integers(0, 256, (60, 80, 3), np.uint8)), ("masks", mask)):
            path = folder / "source" / kind / name.with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (folder / "source" / "names.csv").write_text("id,name\n0,background\n1,body\n2,head\n")


def stage_of_training(run: Path) -> str:
    """How far the training of a run had come."""
    if not (run / "config.yaml").exists():
        return "before the run's folder"
    if not (run / "checkpoints" / "last.safetensors").exists():
        return "before the first checkpoint"
    file = run / "records.jsonl"
    rows = [row for _, _, row in read_rows(file, "is damaged")] if file.exists() else []
    return f"after a checkpoint, {sum(row['kind'] == 'epoch' for row in rows)} epochs recorded"


def stage_of_evaluation(run: Path) -> str:
    """How far the evaluation of a run had come."""
    if not list(run.glob("evaluations/*/identity.json")):
        return "before the ledger"
    if list(run.glob("evaluations/*/result.json")):
        return "after the ledger"
    units = len(list(run.glob("evaluations/*/units/*.json")))
    return f"after {units} units"


def stage_of_preparation(folder: Path) -> str:
    """How far a preparation had come."""
    target = folder / "target"
    if (target / "manifest.jsonl").exists():
        return "after the manifest"
    if (target / "images").exists():
        return "while files move to their places"
    if (target / ".unfinished" / "journal.jsonl").exists():
        return "among the photographs"
    return "before the journal"


def stage_of_papers(folder: Path) -> str:
    """How far a row of a table had come."""
    if list(folder.glob("runs/papers/smoke/*.jsonl")):
        return "evaluation, after a column"
    for run in folder.glob("runs/papers/smoke/*"):
        if (run / "evaluations").exists():
            return f"evaluation, {stage_of_evaluation(run)}"
        if run.is_dir():
            return f"training, {stage_of_training(run)}"
    return "before the run's folder"


COMMANDS: Mapping[str, Command] = {
    "train": Command(TRAIN, 20, nothing_before, lambda folder: stage_of_training(folder / "runs" / "small")),
    "evaluate": Command(
        EVALUATE, 20, train_before, lambda folder: stage_of_evaluation(folder / "runs" / "small")
    ),
    "data prepare": Command(PREPARE, 10, draw_before, stage_of_preparation),
    "papers run": Command(PAPERS, 10, nothing_before, stage_of_papers),
}
