"""The run folders below a folder: how far each came, how good it is, how large, and who is at it.

Nothing is written, no code of the user's is imported, and no link is followed.
"""

import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..catalogue import METHODS
from ..errors import UserError
from ..locks import is_lock_file, who_holds
from ..parsing import parse_json
from ..records import CLEAN, WORST, Record
from ..report.runs import ACCURACY, UNION, without_untried
from ..rundir import RunDir

# Levels below the folder: the tables of papers and the trials of sweeps lie in folders of their own.
DEEPEST = 4
JUDGEMENTS = ("evaluations", "where", "audits", "corruptions")


@dataclass(frozen=True)
class RunState:
    """How a run folder stands.

    Attributes:
        path: the folder.
        name: its path below the folder that was searched.
        state: "running" while a process trains it, "finished" at its last epoch, "stopped" before it, "judged" where
            it holds judgements of a model that came from elsewhere, or is a folder that was shared, or "damaged".
        epoch: the number of epochs that are done; None where nothing says it.
        epochs: the number of epochs that it shall have.
        clean, robust: the accuracies on the validation images after the last epoch, from 0 to 1.
        judged_clean, judged_robust: the clean accuracy and the worst case of the latest evaluation, from 0 to 1.
        size: the bytes of all its files.
        changed: when the youngest of its files was written, in seconds since 1970.
        remark: who is at it, or what is damaged.
        in_use: whether a process trains or judges it.
    """

    path: Path
    name: str
    state: str
    epoch: int | None = None
    epochs: int | None = None
    clean: float | None = None
    robust: float | None = None
    judged_clean: float | None = None
    judged_robust: float | None = None
    size: int = 0
    changed: float = 0.0
    remark: str = ""
    in_use: bool = False

    @property
    def age(self) -> float:
        """Seconds since anything in the folder was written."""
        return max(0.0, time.time() - self.changed)


def look_at_runs(folder: Path) -> list[RunState]:
    """The state of every run folder below a folder, by name.

    Raises:
        UserError: the folder does not exist, or is none.
    """
    return [look_at_run(run, name) for name, run in find_runs(folder)]


def find_runs(folder: Path) -> Iterator[tuple[str, RunDir]]:
    """The run folders below a folder with their paths in it, by name. Links are not followed.

    Raises:
        UserError: the folder does not exist, or is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder. Name the folder of your runs with --runs.")
    if (folder / "config.yaml").is_file():
        yield folder.name, RunDir(folder)
        return
    for path in _below(folder, DEEPEST):
        yield path.relative_to(folder).as_posix(), RunDir(path)


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """Folders that hold a configuration, and are reached by no link."""
    try:
        children = sorted(os.scandir(folder), key=lambda child: child.name)
    except OSError:  # it may not be read, or has just been removed
        return
    for child in children:
        if child.name.startswith(".") or not child.is_dir(follow_symlinks=False):
            continue
        path = Path(child.path)
        if (path / "config.yaml").is_file():
            yield path
        elif levels > 1:
            yield from _below(path, levels - 1)


def look_at_run(run: RunDir, name: str, besides: Path | None = None) -> RunState:
    """The state of a run folder; a lock that the caller holds itself, ``besides``, does not count."""
    size, changed = measure(run.path)
    holders = _holders(run)
    if besides is not None:
        holders.pop(besides, None)
    trainer = holders.get(run.training_lock)
    about: dict[str, Any] = {"size": size, "changed": changed, "in_use": bool(holders)}
    remark = "" if not holders else f"in use by {trainer or next(iter(holders.values()))}"
    try:
        facts = _read(run)
    except (UserError, OSError, ValueError, LookupError, TypeError) as error:
        return RunState(run.path, name, "damaged", remark=remark or " ".join(str(error).split()), **about)
    state = "running" if trainer else facts.pop("state")
    return RunState(run.path, name, **{**facts, "state": state, "remark": remark, **about})


def files_of(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything in a folder that is no folder itself, links unfollowed, with what the system says of it."""
    for root, _, names in os.walk(folder, followlinks=False):
        for name in names:
            path = Path(root) / name
            try:
                yield path, path.lstat()
            except FileNotFoundError:  # it was a temporary file
                continue


def measure(folder: Path) -> tuple[int, float]:
    """The bytes of all files of a folder, and when the youngest was written; locks do not count as young."""
    size, changed = 0, 0.0
    for path, about in files_of(folder):
        size += about.st_size
        if not is_lock_file(path):
            changed = max(changed, about.st_mtime)
    return size, changed or folder.stat().st_mtime


def _holders(run: RunDir) -> dict[Path, str]:
    """Who holds each lock of a run folder that is held."""
    holders = {}
    for path, about in files_of(run.path):
        if is_lock_file(path) and stat.S_ISREG(about.st_mode) and (holder := who_holds(path)) is not None:
            holders[path] = holder
    return holders


def _read(run: RunDir) -> dict[str, Any]:
    """The state of a run that nobody trains, as the fields of ``RunState`` have it."""
    config = run.config()
    records = run.records()
    epochs = _epochs_of(config)
    logged = [record.details for record in records if record.kind == "epoch"]
    facts: dict[str, Any] = {"epoch": len(logged), "epochs": epochs, **_judged(records)}
    if logged:
        facts |= {"clean": logged[-1].get("validation_clean"), "robust": logged[-1].get("validation_robust")}
    last, best = run.checkpoint("last"), run.checkpoint("best")
    if last.exists():
        facts["epoch"] = epoch_of(last)
        return {**facts, "state": "finished" if facts["epoch"] >= epochs else "stopped"}
    if best.exists():
        epoch_of(best, within=())  # so that damage to it is seen
    is_judged = best.exists() or any((run.path / name).is_dir() for name in JUDGEMENTS)
    if run.manifest.exists() or (is_judged and not logged):
        return {**facts, "state": "judged", "epoch": None, "epochs": None}
    return {**facts, "state": "stopped"}


def _epochs_of(config: Mapping[str, Any]) -> int:
    """The number of epochs of a run, as ``build.build_phases`` counts them."""
    train = config.get("train", {})
    method = METHODS.get(train.get("method", "at"))
    attacked = method is None or method.facts.attacked  # a method of the user's own is not looked up
    return int(train["epochs"]) + (int(train.get("clean_epochs", 0)) if attacked else 0)


def epoch_of(file: Path, within: tuple[str, ...] = ("state", "epoch")) -> Any:
    """What the header of a checkpoint says at some place; its tensors are not read.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(file, framework="np") as opened:
            about = parse_json((opened.metadata() or {})["counterpart"])
        for name in within:
            about = about[name]
        return about
    except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file} is damaged: {type(error).__name__}: {error}.") from None


def _judged(records: list[Record]) -> dict[str, float | None]:
    """The accuracies of the latest evaluation; the worst case is that of its largest radius, or of all its norms."""
    evaluations: dict[str, list[Record]] = {}
    for record in records:
        if record.kind == "metric" and record.name.startswith((f"{ACCURACY}/", UNION)):
            evaluations.setdefault(str(record.details.get("evaluation")), []).append(record)
    if not evaluations:
        return {}
    clean = robust = None
    for record in without_untried([*evaluations.values()][-1]):
        _, _, name = record.name.partition("/")
        if name == CLEAN:
            clean = record.value
        elif name == WORST or name.startswith(f"{WORST} at "):
            robust = record.value
    return {"judged_clean": clean, "judged_robust": robust}
