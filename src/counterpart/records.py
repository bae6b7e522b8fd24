"""Results with provenance, one JSON line each. Reports are made from records alone.

A ``metric`` record is one number with its n, interval and seed; an ``epoch`` record is one row of a training
log; an ``artifact`` record names a file, its hash and a caption.
"""

import hashlib
import json
import logging
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from . import checksums
from .command_line import command
from .durability import flush_names, make_folder
from .errors import UserError, unreadable
from .parsing import parse_json
from .parsing.limits import read_bytes, refuse_irregular


@dataclass(frozen=True)
class Record:
    """One result.

    Attributes:
        kind: "metric", "epoch", "timing" or "artifact".
        name: what was measured, such as "accuracy/clean", or the artifact's role, such as "panel".
        value: the number, or None for epochs and artifacts.
        n: how many images (or repetitions) the value stands on.
        interval: 95 % interval (low, high), where the value has one.
        seed: the seed that produced it.
        config: hash of the resolved configuration.
        details: everything particular to this kind: {"epoch": 3, "loss": 1.2}, {"file": ..., "sha256": ...}.
        seconds: how long the work took.
        provenance: command, commit, versions, hardware, time; filled in by ``write``.
    """

    kind: str
    name: str
    value: float | None = None
    n: int | None = None
    interval: tuple[float, float] | None = None
    seed: int | None = None
    config: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Record, Path | None], object]
"""A function that is given a record and the folder of its run, which is None where nothing is written."""

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())
_log = logging.getLogger(__name__)

FIELDS = {field.name for field in fields(Record)}
MEND_LINE = "Put back a copy of the file, or remove that line."
CLEAN, WORST = "clean", "worst case"  # of an evaluation: the name of its first line and of its last
LARGEST = 2**63  # whole numbers from here on are damage; JSON may hold some that no float can


@cache
def environment() -> dict[str, Any]:
    """Command, versions and hardware of this process."""
    import torch

    return {
        "command": command(),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "hardware": hardware(),
    }


@cache
def hardware() -> str:
    """The names of the processor, and of the accelerator if there is one."""
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    name = f"{name}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        name += f"; {torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return name


def _commit() -> str | None:
    """The commit of this package's own checkout, with "+" where files differ from it; None outside of one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", Path(__file__).name):  # no checkout, or another project's
            return None
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "") or None
    except FileNotFoundError:  # no git on this machine
        return None


def write(path: Path, records: Iterable[Record]) -> None:
    """Append records to a JSON-lines file, each with its provenance, and flush them to disk.

    On a full disk none of them is written.
    """
    provenance = {**environment(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    lines = []
    for record in records:
        row = {k: v for k, v in asdict(record).items() if v is not None and v != {}}
        lines.append(checksums.to_json({**row, "provenance": {**provenance, **record.provenance}}))
    append(path, lines)


@contextmanager
def heard_by(listen: Listener, name: str) -> Iterator[None]:
    """Give every record to a function as it is written, while the body runs.

    What the function raises is said once, and ends nothing: a training is worth more than its curve. Only what is no
    ``Exception``, such as KeyboardInterrupt, goes on to the caller.

    Args:
        listen: the function.
        name: what it is called in the sentence on its failure.
    """
    failed: list[str] = []

    def hear(record: Record, folder: Path | None) -> None:
        try:
            listen(record, folder)
        except Exception as error:  # somebody else's code may raise anything
            if not failed:
                failed.append(name)
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                _log.warning(
                    "%s failed on the record %r (%s). What is under way goes on.", name, record.name, reason
                )

    token = _listeners.set((*_listeners.get(), hear))
    try:
        yield
    finally:
        _listeners.reset(token)


def hand_over(rows: Iterable[Record], folder: Path | None) -> None:
    """Give records to whoever listens.

    Args:
        rows: the records, which are written now, or which nothing will write.
        folder: the folder of their run; None where nothing is written.
    """
    for record in rows:
        for listen in _listeners.get():
            listen(record, folder)


def append(path: Path, lines: Iterable[str], flush: bool = True) -> None:
    """Append lines to a file that grows.

    On a full disk none of them is written. A line that a killed process left unfinished is cut off first.

    Args:
        path: the file, which is made where it does not exist.
        lines: the lines, without their ends.
        flush: wait until they are on the disk, where they outlast a loss of power.
    """
    before = None
    try:
        make_folder(path.parent)
        before = cut_unfinished_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            if flush:
                os.fsync(file.fileno())
                flush_names(path.parent)
    except OSError as error:
        if before is not None and path.exists():
            os.truncate(path, before)
        raise UserError(
            f"Could not write {path}: {error.strerror or error}. None of the new records was kept; free some space "
            "(or mend the permission) and run the same command again."
        ) from error


def cut_unfinished_line(path: Path) -> int:
    """Cut off a line that a killed writer left unfinished, which would make the next record unreadable.

    A line of which only the end is missing gets it.

    Returns:
        The length of the file after that.

    Raises:
        UserError: the line is whole but for its end, which is damaged.
    """
    content = path.read_bytes() if path.exists() else b""
    length = content.rfind(b"\n") + 1
    rest = content[length:]
    if checksums.is_whole_line(rest) and not rest.endswith(b"}"):
        raise UserError(f"{path} is damaged: the end of its last line is not what was written. {MEND_LINE}")
    if checksums.is_whole_line(rest):  # only its end is missing, and readers know it already
        with path.open("ab") as file:
            file.write(b"\n")
        return len(content) + 1
    if rest:
        os.truncate(path, length)
    return length


def read(path: Path) -> list[Record]:
    """Read every record of a file. A last line that a killed writer left unfinished is passed over."""
    return [record for _, record in read_lines(path)] if path.exists() else []


def read_sound(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Read a file that somebody else may have made: the number of each line, and its record or what is wrong with it.

    A last line that a killed writer left unfinished is passed over.

    Raises:
        UserError: the file cannot be read, or is too large.
    """
    for number, _, row in _rows(path):
        if isinstance(row, str):
            yield number, row
            continue
        try:
            yield number, _record(row)
        except (ValueError, TypeError) as error:
            yield number, str(error)


def read_lines(path: Path) -> Iterator[tuple[bytes, Record]]:
    """Read every line of a file of records, without its end, and the record that it holds."""
    for number, line, row in read_rows(path, "is not a record"):
        try:
            yield line, _record(row)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, line {number} is not a record: {error}. {MEND_LINE}") from None


def read_rows(path: Path, fault: str) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Read the lines of a file that ``append`` wrote: the number of each, its bytes, and its JSON object.

    A checksum is looked at and left out. A last line that a killed writer left unfinished is passed over.

    Args:
        path: the file.
        fault: what is said of a line that is none of ours.

    Raises:
        UserError: a line is no JSON object, or does not fit its checksum; or the file cannot be read.
    """
    for number, line, row in _rows(path):
        if isinstance(row, str):
            raise UserError(f"{path}, line {number} {fault}: {row}. {MEND_LINE}")
        yield number, line, row


def _rows(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any] | str]]:
    """Each line with its number, its bytes, and its JSON object without the checksum, or what is wrong with it."""
    try:
        lines = read_bytes(path, "TEXT").split(b"\n")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.decode())
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            if not checksums.is_sealed_json(row, line):
                checksums.note_absence(path)
        except ValueError as error:
            # Without a newline, the writer was killed in the middle of this line.
            if number == len(lines) and not checksums.is_whole_line(line):
                return
            yield number, line, str(error)
        else:
            yield number, line, row


def _record(row: dict[str, Any]) -> Record:
    """Read a record from its line."""
    if not row.keys() <= FIELDS:
        raise TypeError("it has entries that no record has")
    if not all(isinstance(row.get(name), str) for name in ("kind", "name")):
        raise TypeError("its kind and name must be texts")
    if not all(_is_number(row.get(name, 0)) for name in ("value", "n", "seconds")):
        raise TypeError("its value, n and seconds must be numbers of ordinary size")
    if not all(isinstance(row.get(name, {}), dict) for name in ("details", "provenance")):
        raise TypeError("its details and provenance must be objects")
    ends = row.get("interval")
    if ends is not None and not (
        isinstance(ends, list) and len(ends) in (0, 2) and all(map(_is_number, ends))
    ):
        raise TypeError("its interval must be two numbers")
    row["interval"] = tuple(ends) if ends else None
    return Record(**row)


def _is_number(value: object) -> bool:
    """Whether a value is a number that a float can hold, or missing."""
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < LARGEST)


def fingerprint(value: object) -> str:
    """Twelve hex digits that identify a JSON-like value, such as a configuration."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
        UserError: it is a pipe, a device or a folder.
    """
    try:
        refuse_irregular(path)
    except ValueError as error:
        raise unreadable(path, error) from None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
