"""One folder per run: resolved configuration, environment, records, checkpoints, evaluations.

    runs/<name>/config.yaml  environment.json  records.jsonl  progress.log
                checkpoints/{last,best}.safetensors  evaluations/<key>/  report/index.html

Files are written to a temporary name, flushed, and renamed: a kill or a loss of power leaves the old file or the new
one, and no file without those that were written before it. Three
grow instead: records.jsonl and the counts of corruptions, whose readers pass over a last line that a kill tore, and
progress.log, which nothing reads.
"""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError

from . import checksums, records
from .durability import flush_names, make_folder
from .errors import UserError, unreadable
from .locks import is_lock_file, while_written
from .parsing import parse_json, parse_yaml
from .parsing.limits import read_bytes
from .records import Record
from .renamed_settings import in_current_words

# What may change between two starts of the same run without making it another run.
NOT_IDENTITY = (
    "name", "runs", "wait", "device", "data.root", "data.download", "data.workers", "mask.files",
    "train.stop_after", "train.checkpoint_every", "evaluate", "corruptions",
)  # fmt: skip

OLD = 24 * 3600.0  # seconds; no file takes this long to write
HALF_WRITTEN_TENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")  # what safetensors itself writes into, and renames


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, rename it, and flush the name.

    If it is there after a loss of power, so is whatever was written so before it. A full disk leaves nothing behind but
    the old file, and says so.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folder(path.parent)
        # A link there, in a folder of somebody else, would lead the content away.
        temporary.unlink(missing_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors reports a full disk
        raise UserError(
            f"Could not write {path}: {getattr(error, 'strerror', None) or error}. The previous file is untouched; "
            "free some space (or mend the permission) and run the same command again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    try:
        flush_names(path.parent)
    except OSError as error:
        raise UserError(
            f"{path} is written, but may not outlast a loss of power: {error.strerror}. Free some space and run the "
            "same command again."
        ) from error


def write_json(path: Path, value: Mapping[str, Any], indent: int | None = 1) -> None:
    """Write an object as a JSON file with its checksum, as ``write_atomically`` does."""
    text = checksums.to_json(value, indent=indent)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """The value of a JSON file that we wrote, without its checksum, which is looked at.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or does not fit its checksum.
    """
    content = read_bytes(path, "TEXT")
    value = parse_json(content.decode("utf-8-sig"))
    if not checksums.is_sealed_json(value, content):
        checksums.note_absence(path)
    return value


def lies_within(folder: Path, file: Path) -> bool:
    """Whether a file lies in a folder, wherever links lead."""
    try:
        file.is_file()  # raises for a name that no file can have
        return file.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, or a name that no file can have
        return False


def sweep(folder: Path) -> None:
    """Remove the temporary files of ``write_atomically`` that killed processes left in a folder.

    That is ``.NAME.PID`` where no process of that number runs on this machine, or where the file is older than a
    day; and what safetensors had begun. Only for files that one process at a time writes: a writer on another machine
    is not seen by its number, and one of safetensors has none.
    """
    for file in folder.glob(".*"):
        if file.is_file() and is_left_behind(file):
            file.unlink(missing_ok=True)


def is_left_behind(file: Path) -> bool:
    """Whether a file was being written by a process that is no more."""
    if HALF_WRITTEN_TENSORS.fullmatch(file.name):
        return True
    pid = re.fullmatch(r"\..+\.(\d+)", file.name)
    if pid is None:
        return False
    return not is_running(int(pid[1])) or time.time() - file.stat().st_mtime > OLD


def is_running(pid: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # a process of somebody else
        return True
    return True


def members(path: Path) -> list["RunDir"]:
    """The run of a run folder, or the ``seed-<k>`` runs of a group folder, by seed. Other folders are passed over.

    Raises:
        UserError: the folder is neither, or does not exist.
    """
    if RunDir(path).config_file.exists():
        return [RunDir(path)]
    seeds = [
        (match, child) for child in path.glob("seed-*") if (match := re.fullmatch(r"seed-(\d+)", child.name))
    ]
    runs = [RunDir(child) for _, child in sorted(seeds, key=lambda pair: (int(pair[0][1]), pair[1].name))]
    runs = [run for run in runs if run.config_file.exists()]
    if not runs:
        what = (
            "is no run folder: it has no config.yaml and no seed-* runs"
            if path.is_dir()
            else "does not exist"
        )
        raise UserError(f"{path} {what}. Train one with: counterpart train RECIPE")
    return runs


@dataclass(frozen=True)
class RunDir:
    """The paths of a run folder and how its files are read and written."""

    path: Path

    @property
    def name(self) -> str:
        """The name of the run, which is that of its folder."""
        return self.path.name

    @property
    def records_file(self) -> Path:
        """The file of records: JSON lines, which only grow."""
        return self.path / "records.jsonl"

    @property
    def progress_log(self) -> Path:
        """The lines that a training shows, kept. It only grows."""
        return self.path / "progress.log"

    @property
    def training_lock(self) -> Path:
        """The lock of whoever trains the run."""
        return self.path / ".training.lock"

    @property
    def manifest(self) -> Path:
        """The list of files of a folder that was shared; other run folders have none."""
        return self.path / "shared.json"

    @property
    def config_file(self) -> Path:
        """The file of the resolved configuration."""
        return self.path / "config.yaml"

    def checkpoint(self, name: str) -> Path:
        """The file of a checkpoint: ``last``, to continue from, or ``best``, by robust validation accuracy."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    @property
    def evaluation_folders(self) -> list[Path]:
        """The folders of the evaluations that have begun, by name."""
        return sorted(file.parent for file in self.path.glob("evaluations/*/identity.json"))

    def create(
        self, config: Mapping[str, Any], identity: Callable[[Mapping[str, Any]], dict[str, Any]]
    ) -> None:
        """Make the folder for this configuration, or check that the one there belongs to it.

        Args:
            config: the resolved configuration.
            identity: reduces a configuration to the settings that must not differ.
        """
        if not self.config_file.exists():
            with while_written(self.config_file):
                self._make(config)
        there, now = (in_current_words(identity(known)) for known in (self.config(), config))
        changed = differences(there, now)
        if changed:
            raise UserError(
                f"{self.path} holds a run with another configuration ({'; '.join(changed[:3])}). "
                "Give this run a name of its own with --name, or another folder with --runs, or remove the old one."
            )
        # The configuration came first, because it makes the folder a run: a kill may have come before this.
        if not (self.path / "environment.json").exists():
            write_json(self.path / "environment.json", records.environment())

    def _make(self, config: Mapping[str, Any]) -> None:
        """Write the configuration, unless another process has done so meanwhile."""
        if self.config_file.exists():
            return
        sweep(self.path)
        if any(not is_lock_file(file) for file in self.path.iterdir()):
            raise UserError(
                f"{self.path} exists, is not empty and is no run folder. Choose another --name or --runs."
            )
        text = checksums.to_commented(yaml.safe_dump(dict(config), sort_keys=False))
        write_atomically(self.config_file, lambda p: p.write_text(text))

    def config(self) -> dict[str, Any]:
        """The resolved configuration, in today's words whenever it was written."""
        if not self.config_file.exists():
            raise UserError(f"{self.path} is no run folder: it has no config.yaml.")
        try:
            content = read_bytes(self.config_file, "TEXT")
            if not checksums.is_sealed_comment(content):
                checksums.note_absence(self.config_file)
            loaded = parse_yaml(content.decode("utf-8-sig"))
        except OSError as error:
            raise unreadable(self.config_file, error) from None
        except ValueError as error:
            raise UserError(
                f"{self.config_file} is damaged: {error}. Restore it, or remove the run; if you edited it on purpose, "
                "delete its last line."
            ) from None
        if not isinstance(loaded, dict) or not isinstance(loaded.get("data", {}), dict):
            raise UserError(
                f"{self.config_file} is damaged: it does not hold a run's settings. Restore it, or remove the run."
            )
        return in_current_words(loaded)

    def records(self) -> list[Record]:
        """Every record so far."""
        return records.read(self.records_file)

    def refuse_links_out(self, path: Path) -> None:
        """Refuse to write into what lies elsewhere: a run folder of somebody else may hold links to files of ours.

        Args:
            path: a file of the run, or a folder with all that it holds. It need not exist.

        Raises:
            UserError: a link leads out of the run folder.
        """
        links = [file for file in path.rglob("*") if file.is_symlink()]
        for file in (path, *links):
            if not lies_within(self.path, file):
                raise UserError(
                    f"{file} leads out of {self.path} by a link: nothing is written there. Put what it leads to in "
                    "its place; if the disk is too small, link the whole run folder."
                )

    def add(self, rows: Iterable[Record]) -> None:
        """Append records, and hand them over to whoever listens."""
        rows = list(rows)
        self.add_unheard(rows)
        records.hand_over(rows, self.path)

    def add_unheard(self, rows: Iterable[Record]) -> None:
        """Append records that may have to be taken back, and are handed over later."""
        self.refuse_links_out(self.records_file)
        with while_written(self.records_file):
            records.write(self.records_file, rows)

    def add_once(self, rows: Iterable[Record]) -> None:
        """Append those records that are not in the file yet, wherever and whenever they were made."""
        self.refuse_links_out(self.records_file)
        with while_written(self.records_file):
            known = [replace(record, provenance={}) for record in self.records()]
            new = [row for row in rows if row not in known]
            records.write(self.records_file, new)
        records.hand_over(new, self.path)

    def sweep(self) -> None:
        """Remove what a killed training left half-written, but not of evaluations, which may be under way elsewhere."""
        for folder in (self.path, self.path / "checkpoints"):
            sweep(folder)

    def drop_epochs_from(self, epoch: int) -> None:
        """Forget the log of epochs that a continued run is about to make again.

        They were logged after the checkpoint that the run continues from. Evaluations stay.
        """
        if self.records_file.exists():
            with while_written(self.records_file):
                self._drop_epochs_from(epoch)

    def _drop_epochs_from(self, epoch: int) -> None:
        remaining = b""
        for line, record in records.read_lines(self.records_file):
            number = record.details.get("epoch")
            if record.kind != "epoch" or (isinstance(number, int) and number < epoch):
                remaining += line + b"\n"
        if remaining != self.records_file.read_bytes():
            write_atomically(self.records_file, lambda p: p.write_bytes(remaining))

    def artifact(self, file: Path, name: str, caption: str) -> Record:
        """Make a record that names a file of this run."""
        details = {
            "file": str(file.relative_to(self.path)),
            "sha256": records.file_hash(file),
            "caption": caption,
        }
        return Record(kind="artifact", name=name, details=details)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """A clause for each setting of two nested mappings that differs: "train.epochs: 15 there, 5 now"."""
    clauses: list[str] = []
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            clauses += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            clauses.append(f"{prefix}{key}: {before} there, {after} now")
    return clauses
