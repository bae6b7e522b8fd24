"""Single bits of a run's files, flipped one at a time: each has to be noticed, or to be without effect.

A flip is *noticed* where the reader of the file refuses it by name. It is *without effect* where the reader returns
what it returned before, bit for bit. Anything else is *silent*, and there must be none.
"""

import argparse
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from counterpart import checksums, jobs
from counterpart.cli import main as counterpart
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.evaluation.ledger import Ledger
from counterpart.pictures import Pictures
from counterpart.records import Record, read_rows
from counterpart.rundir import RunDir, read_json
from counterpart.training import checkpoint

Reader = Callable[[Path], Any]
SIZE = 100_000_000  # bytes of the file whose cost is measured


@dataclass
class Counts:
    """Flips of one kind of place: how many, and what became of them.

    Attributes:
        flipped: the number of flips.
        noticed: those that the reader refused.
        harmless: those after which it returned the same.
        silent: the places, as (file, bit), of all others.
    """

    flipped: int = 0
    noticed: int = 0
    harmless: int = 0
    silent: list[tuple[str, int]] = field(default_factory=list)


def measure(given: argparse.Namespace) -> list[Record]:
    """Flip every bit of headers, records, JSON and configuration, and some bits of each binary file's data."""
    with tempfile.TemporaryDirectory() as home:
        run = make_run(Path(home))
        counts = flip_all(run, random.Random(given.seed), data_bits=given.bits)
        records = [as_record(name, count, given) for name, count in counts.items()]
        return records + costs(Path(home))


def as_record(name: str, count: Counts, given: argparse.Namespace) -> Record:
    """The record of the flips that went through in silence."""
    details = {
        "unit": "silent flips", "target": "0", "flipped": count.flipped, "noticed": count.noticed,
        "without effect": count.harmless, "silent": count.silent[:5],
    }  # fmt: skip
    return Record(
        "metric", f"faults/bits/{name}", len(count.silent), count.flipped, seed=given.seed, details=details
    )


def make_run(home: Path) -> RunDir:
    """A small run with files of every kind: stored maps, an evaluation under masks, corruptions, a where-profile."""
    settings = {
        "name": "small", "runs": str(home / "runs"), "device": "cpu",
        "data": {"limit": 60, "flip": False, "padding": 0},
        "model": {"name": "wrn-10-1", "width": 1},
        "attack": {"eps": 0.1, "steps": 1},
        "mask": {"eps_low": 0.05, "burn_in": 0, "refresh_epochs": 1},
        "train": {
            "method": "part", "epochs": 1, "batch_size": 30, "precision": "float32", "validation_steps": 1,
            "validation_n": 10, "ema": 0.9,
        },
    }  # fmt: skip
    run = jobs.train(resolve(settings)).run
    small = ["--device", "cpu", "--n", "20"]
    attacked = ["--attacks", "[{steps: 2}]", "--eps", "0.3", "--evaluate.precision", "float32"]
    for words in (
        ["evaluate", str(run.path), *small, *attacked, "--evaluate.eps-low", "0.2"],
        ["where", str(run.path), *small, *attacked, "--regions", "top", "--shares", "0.5", "--draws", "1"],
        ["corruptions", str(run.path), *small, "--names", "brightness", "--severities", "1"],
    ):
        if counterpart(words) != 0:
            raise RuntimeError(f"{words[0]} failed")
    return run


def readers(run: RunDir) -> Iterator[tuple[Path, Reader]]:
    """Every file of a run that is read again, and how."""
    for path in sorted(run.path.rglob("*")):
        if path.name == "config.yaml":
            yield path, lambda _: run.config()
        elif path.name == "records.jsonl":
            yield path, lambda _: run.records()
        elif path.name == "panel.safetensors":
            yield path, lambda path: vars(Pictures.read(path))
        elif path.parent.name == "checkpoints":
            yield path, checkpoint.read
        elif path.parent.name == "images":
            name, _, chunk = path.stem.rpartition("-")
            ledger = Ledger(path.parents[1], 1)
            yield path, lambda _, ledger=ledger, name=name, chunk=chunk: ledger.images(name, int(chunk))
        elif path.suffix == ".safetensors":
            yield path, checksums.load_tensors
        elif path.suffix == ".jsonl":
            yield path, lambda path: [row for _, _, row in read_rows(path, "is damaged")]
        elif path.suffix == ".json":
            yield path, read_json


def flip_all(
    run: RunDir, drawn: random.Random, data_bits: int, text_bits: int | None = None
) -> dict[str, Counts]:
    """Flip bits of all files, and count what became of them by kind of place.

    Args:
        run: a run, whose files are as before in the end.
        drawn: draws the bits.
        data_bits: how many bits of the data of each binary file are flipped.
        text_bits: how many of each header and text; None for all of them.
    """
    counts: dict[str, Counts] = {}
    for path, reader in readers(run):
        header, whole = header_bits(path), 8 * path.stat().st_size
        kind = "headers" if path.suffix == ".safetensors" else kind_of(path)
        places = range(header) if text_bits is None else drawn.sample(range(header), min(header, text_bits))
        flip(path, reader, places, counts.setdefault(kind, Counts()))
        data = [drawn.randrange(header, whole) for _ in range(data_bits)] if header < whole else []
        if data:
            flip(path, reader, data, counts.setdefault("data of binary files", Counts()))
    return counts


def kind_of(path: Path) -> str:
    """The kind of a text file, as counts name it."""
    return {"config.yaml": "configuration", "records.jsonl": "records"}.get(path.name, "JSON files")


def header_bits(path: Path) -> int:
    """The bits of a file in which each counts: the header of a binary file, all of a text."""
    if path.suffix != ".safetensors":
        return 8 * path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
    return int(8 * (8 + length))


def flip(path: Path, reader: Reader, bits: Any, counts: Counts) -> None:
    """Flip some bits of a file, one at a time, and count what its reader makes of it."""
    before = deepcopy(reader(path))  # tensors may be the file itself, mapped into memory
    with path.open("rb+", buffering=0) as file:
        for bit in bits:
            file.seek(bit // 8)
            byte = file.read(1)[0]
            write(file, bit // 8, byte ^ (1 << bit % 8))
            try:
                verdict = "harmless" if same(reader(path), before) else "silent"
            except UserError as refusal:
                verdict = "noticed" if path.name in str(refusal) else "silent"
            except (ValueError, SafetensorError):  # of readers whose callers name the file
                verdict = "noticed"
            write(file, bit // 8, byte)
            counts.flipped += 1
            counts.noticed += verdict == "noticed"
            counts.harmless += verdict == "harmless"
            if verdict == "silent":
                counts.silent.append((path.name, bit))


def write(file: Any, place: int, byte: int) -> None:
    """Overwrite one byte of an open file."""
    file.seek(place)
    file.write(bytes([byte]))


def same(value: Any, before: Any) -> bool:
    """Whether two values that a reader returned are the same, bit for bit."""
    if isinstance(before, torch.Tensor):
        return isinstance(value, torch.Tensor) and same(value.numpy(), before.numpy())
    if isinstance(before, np.ndarray):
        alike = isinstance(value, np.ndarray) and (value.dtype, value.shape) == (before.dtype, before.shape)
        return alike and value.tobytes() == before.tobytes()
    if isinstance(before, dict):
        return list(value) == list(before) and all(same(value[key], before[key]) for key in before)
    if isinstance(before, list | tuple):
        return len(value) == len(before) and all(map(same, value, before))
    return bool(value == before)


def costs(home: Path) -> list[Record]:
    """Milliseconds that a checksum adds to writing and to reading 100 MB of tensors that lie in the page cache."""
    path = home / "weights.safetensors"
    checksums.save_tensors({"weight": torch.rand(SIZE // 4)}, path)
    records = []
    for name, work in (("save", checksums.seal_file), ("load", checksums.is_sealed_file)):
        times = [1e3 * spent(partial(work, path)) for _ in range(9)]
        details = {"unit": "ms", "target": "tens", "bytes": SIZE}
        interval = min(times), max(times)
        title = f"faults/checksum/{name} 100 MB"
        records.append(Record("timing", title, median(times), len(times), interval, details=details))
    return records


def spent(work: Callable[[], object]) -> float:
    """Seconds of the processor that a call takes: other work on the machine does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started
