"""Whether the files of a run folder are what was written there: checksums, records, and the files that these name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .. import checksums
from ..errors import UserError
from ..parsing import parse_json, parse_yaml
from ..parsing.limits import read_bytes, refuse_large
from ..records import file_hash, read_lines, read_rows
from ..rundir import RunDir, lies_within


@dataclass
class Files:
    """What a look at the files of a run folder found.

    Attributes:
        sealed: how many carry a checksum that fits them.
        bare: the paths, within the folder, of those that carry none. They can be read.
        faults: a clause for each file that is not what was written.
    """

    sealed: int = 0
    bare: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def check_files(run: RunDir) -> Files:
    """Look at every checkpoint, JSON file, configuration and record of a run folder, and at what records name."""
    files = Files()
    for path in sorted(run.path.rglob("*")):
        is_sealed = _READERS.get(path.name) or _READERS.get(path.suffix)
        if is_sealed is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(run.path).as_posix()
        try:
            if is_sealed(path):
                files.sealed += 1
            else:
                files.bare.append(name)
        except (UserError, SafetensorError, OSError, ValueError) as error:
            files.faults.append(f"{name}: {str(error).removeprefix(f'{path}, ')}")
    if not files.faults:
        files.faults += _changed_artifacts(run)
    return files


def _changed_artifacts(run: RunDir) -> list[str]:
    """A clause for each file that is another one than when it was recorded. What was removed is not missed."""
    recorded = {
        str(r.details.get("file")): r.details.get("sha256") for r in run.records() if r.kind == "artifact"
    }
    changed = []
    for name, digest in recorded.items():
        file = run.path / name
        if not lies_within(run.path, file):
            changed.append(f"{name:.200} lies outside of the run folder, so that it was not opened")
        elif file.is_file() and file_hash(file) != digest:
            changed.append(f"{file} has changed since it was recorded (its hash differs)")
    return changed


def _is_sealed_config(path: Path) -> bool:
    content = read_bytes(path, "TEXT")
    there = checksums.is_sealed_comment(content)
    parse_yaml(content.decode("utf-8-sig"))
    return there


def _is_sealed_json(path: Path) -> bool:
    content = read_bytes(path, "TEXT")
    return checksums.is_sealed_json(parse_json(content.decode("utf-8-sig")), content)


def _are_sealed_records(path: Path) -> bool:
    return all(checksums.is_whole_line(line) for line, _ in read_lines(path))


def _are_sealed_rows(path: Path) -> bool:
    return all(checksums.is_whole_line(line) for _, line, _ in read_rows(path, "is damaged"))


def _is_sealed_tensors(path: Path) -> bool:
    refuse_large(path, "WEIGHTS")
    if checksums.is_sealed_file(path):
        return True
    with safe_open(path, framework="pt"):  # refuses a file that was cut
        return False


_READERS: Mapping[str, Callable[[Path], bool]] = {
    "config.yaml": _is_sealed_config,
    "records.jsonl": _are_sealed_records,
    ".json": _is_sealed_json,
    ".jsonl": _are_sealed_rows,
    ".safetensors": _is_sealed_tensors,
}
