"""SIGKILL of one process of two of torchrun: the other ends soon, and the same command ends as an undisturbed one."""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fault_kills
from fault_kills import Command

from counterpart.records import Record

COUNT = 3  # kills of each command in the long form
SOON = 60.0  # seconds within which all processes have ended
TOO_LONG = 600.0  # seconds after which a command hangs
SOURCE = Path(__file__).parents[1] / "src"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "counterpart"]


def for_torchrun(command: Command) -> Command:
    """A command as torchrun takes it: a bare ``--n`` would be an option of its own."""
    words = ["--evaluate.n" if word == "--n" else word for word in command.words]
    return replace(command, words=words)


COMMANDS: Mapping[str, Command] = {
    name: for_torchrun(fault_kills.COMMANDS[name]) for name in ("train", "evaluate")
}


@dataclass
class Deaths:
    """What became of a command of which one process was killed, each time anew.

    Attributes:
        moments: when, in seconds of the processor that the process had used, and which process.
        seconds: how long the others then took to end.
        faults: moments with what went wrong.
    """

    moments: list[tuple[float, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)


def measure(given: argparse.Namespace) -> list[Record]:
    """Kill one process of every command at some moments."""
    return fault_kills.measure_each("ranks", COMMANDS, given, count_deaths)


def count_deaths(command: Command, home: Path, drawn: random.Random) -> tuple[int, int, dict[str, Any]]:
    """Kill processes of a command, and count the kills that did harm."""
    deaths = kill_ranks(command, home, drawn, COUNT)
    details = {
        "stated seconds": SOON, "moments": [[round(moment, 3), rank] for moment, rank in deaths.moments],
        "seconds until the others had ended": [round(seconds, 2) for seconds in deaths.seconds],
        "faults": deaths.faults[:5],
    }  # fmt: skip
    return len(deaths.faults), len(deaths.moments), details


def kill_ranks(command: Command, home: Path, drawn: random.Random, count: int) -> Deaths:
    """Kill one process of a command, wait for the others, give the command again, and compare with an undisturbed one.

    Args:
        command: the command.
        home: an empty folder.
        drawn: draws the process and the moment, between the command's first file and its end.
        count: how often. A command that ended before its moment is not counted.
    """
    before, whole = home / "before", home / "whole"
    before.mkdir()
    command.set_out(before)
    shutil.copytree(before, whole)
    began, ended = complete(command.words, whole)
    wanted, deaths = fault_kills.content(whole), Deaths()
    while (number := len(deaths.moments)) < count:
        moment, rank = began + (number + drawn.random()) / count * (ended - began), drawn.randrange(2)
        folder = home / "killed"
        shutil.copytree(before, folder)
        seconds = seconds_to_end(command.words, folder, moment, rank)
        if seconds is not None:
            deaths.moments.append((moment, rank))
            deaths.seconds.append(seconds)
            complete(command.words, folder)
            differing = fault_kills.differences(wanted, fault_kills.content(folder))
            if seconds > SOON:
                differing.insert(0, f"the others took {seconds:.0f} s to end")
            if differing:
                deaths.faults.append((moment, differing[0]))
        shutil.rmtree(folder)
    return deaths


def start(words: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a command by torchrun in a folder, whose output goes into a file beside the folder."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    with folder.with_name(f"{folder.name}.log").open("w") as output:
        return subprocess.Popen(
            [sys.executable, *TORCHRUN, *words], cwd=folder, env=environment, stdout=output, stderr=output
        )


def ranks_of(job: subprocess.Popen[bytes]) -> list[int]:
    """The numbers of the processes that torchrun started, in the order of their ranks."""
    with suppress(OSError):
        return sorted(map(int, Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()))
    return []


def complete(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command to its end.

    Returns:
        The seconds of the processor that its first process had used when the first file was there, and in the end.
    """
    before, first, used, started = fault_kills.files_in(folder), 0.0, 0.0, time.monotonic()
    job = start(words, folder)
    while job.poll() is None:
        ranks = ranks_of(job)
        if len(ranks) == 2:
            used = fault_kills.seconds_used(ranks[0]) or used
        if first == 0.0 and fault_kills.files_in(folder) != before:
            first = used
        if time.monotonic() - started > TOO_LONG:
            job.kill()
        time.sleep(fault_kills.PAUSE)
    if job.returncode != 0:
        said = folder.with_name(f"{folder.name}.log").read_text()
        raise RuntimeError(f"{' '.join(words)} ended with {job.returncode}: {said[-2000:]}")
    return first, used


def seconds_to_end(words: Sequence[str], folder: Path, moment: float, rank: int) -> float | None:
    """Kill one process once it has used some seconds of the processor.

    Returns:
        The seconds after which all the others had ended; None where the command had ended before.
    """
    job = start(words, folder)
    while job.poll() is None:
        ranks = ranks_of(job)
        used = fault_kills.seconds_used(ranks[rank]) if len(ranks) == 2 else None
        if used is not None and used >= moment:
            killed = time.monotonic()
            with suppress(ProcessLookupError):
                os.kill(ranks[rank], signal.SIGKILL)
            was_killed = job.wait(TOO_LONG) != 0
            return time.monotonic() - killed if was_killed else None
        time.sleep(fault_kills.PAUSE)
    return None
