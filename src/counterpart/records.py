"""Results with provenance, one JSON line each. Reports are made from records alone.

A ``metric`` record is one number with its n, interval and seed; an ``epoch`` record is one row of a training
log; an ``artifact`` record names a file, its hash and a caption.
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .command_line import command
from .errors import UserError
from .parsing import parse_json


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
        lines.append(json.dumps({**row, "provenance": {**provenance, **record.provenance}}))
    append(path, lines)


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
        path.parent.mkdir(parents=True, exist_ok=True)
        before = _cut_unfinished_line(path)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            if flush:
                os.fsync(file.fileno())
    except OSError as error:
        if before is not None and path.exists():
            os.truncate(path, before)
        raise UserError(
            f"Could not write {path}: {error.strerror or error}. None of the new records was kept; free some space "
            "(or mend the permission) and run the same command again."
        ) from error


def _cut_unfinished_line(path: Path) -> int:
    """Cut off a line that a killed writer left unfinished, which would make the next record unreadable.

    Returns:
        The length of the file after that.
    """
    content = path.read_bytes() if path.exists() else b""
    length = content.rfind(b"\n") + 1
    if length < len(content):
        os.truncate(path, length)
    return length


def read(path: Path) -> list[Record]:
    """Read every record of a file. A last line that a killed writer left unfinished is passed over."""
    return list(_read(path)) if path.exists() else []


def _read(path: Path) -> Iterator[Record]:
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _record(parse_json(line.decode()))
        except (ValueError, TypeError) as error:
            if number == len(lines):  # no newline: the writer was killed in the middle of this line
                return
            raise UserError(f"{path}, line {number} is not a record: {error}.") from None


def _record(row: object) -> Record:
    """Read a record from its line."""
    if not isinstance(row, dict):
        raise TypeError("it is no JSON object")
    row["interval"] = tuple(row["interval"]) if row.get("interval") else None
    if not all(isinstance(row.get(name), str) for name in ("kind", "name")):
        raise TypeError("its kind and name must be texts")
    if not all(isinstance(row.get(name), int | float | None) for name in ("value", "n", "seconds")):
        raise TypeError("its value, n and seconds must be numbers")
    if not all(isinstance(row.get(name, {}), dict) for name in ("details", "provenance")):
        raise TypeError("its details and provenance must be objects")
    return Record(**row)


def fingerprint(value: object) -> str:
    """Twelve hex digits that identify a JSON-like value, such as a configuration."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
