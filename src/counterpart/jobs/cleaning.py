"""What run folders hold that nobody needs any more, and its removal.

Nothing goes that is in use, that a link leads to, or that this project did not write.
"""

import math
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from ..locks import Held, hold, is_lock_file
from ..rundir import RunDir, is_left_behind
from ..training import checkpoint
from .holding import LOCK
from .run_states import RunState, files_of, find_runs, look_at_run, measure

MONTH = 30 * 24 * 3600.0  # seconds after which what is unfinished counts as given up
STUDY = "journal.jsonl"  # of a sweep, which knows its trials by their folders
OF_A_RUN = re.compile(
    r"config\.yaml|environment\.json|records\.jsonl|progress\.log|checkpoints/(last|best)\.safetensors"
    r"|report/index\.html|tensorboard/events\.out\.tfevents\.[^/]+"
)
OF_AN_EVALUATION = re.compile(
    r"(identity|settings|view|result)\.json|images\.csv|(radii|panel|first-logits)\.safetensors"
    r"|(units|images)/[^/]+\.(json|safetensors)"
)


@dataclass(frozen=True)
class Removable:
    """Something in a run folder that nobody needs any more.

    Attributes:
        run: the run folder.
        path: the file or the folder that goes, or the checkpoint that becomes smaller.
        size: the bytes that it sets free.
        why: what it is, in words.
    """

    run: RunDir
    path: Path
    size: int
    why: str

    @property
    def shrinks(self) -> bool:
        """Whether a file becomes smaller, and nothing goes."""
        return self.path == self.run.checkpoint("last")


def removables(folder: Path, older_than: float = MONTH) -> list[Removable]:
    """What a cleaning would remove of the run folders below a folder; nothing is removed.

    Args:
        folder: the folder.
        older_than: the seconds for which nothing was written to what is unfinished, and counts as given up.

    Raises:
        UserError: the folder does not exist, or is none.
    """
    return [item for _, run in find_runs(folder) for item in removables_of(run, older_than)]


def clean(folder: Path, older_than: float = MONTH) -> list[Removable]:
    """Remove what ``removables`` names, and return what was removed.

    Each run is looked at once more under its lock, so that nothing goes that a process has taken up meanwhile.
    """
    removed = []
    for run in dict.fromkeys(item.run for item in removables(folder, older_than)):
        with suppress(Held), hold(run.training_lock, f"the training {run.path}"):
            for item in removables_of(run, older_than, locked=True):
                _remove(item)
                removed.append(item)
        with suppress(OSError):  # it is not empty
            run.path.rmdir()
    return removed


def removables_of(run: RunDir, older_than: float, *, locked: bool = False) -> list[Removable]:
    """What can go of one run folder, whose training lock the caller may hold (``locked``).

    Nothing goes of a run that is in use, damaged, or shared.
    """
    state = look_at_run(run, run.name, besides=run.training_lock if locked else None)
    if state.in_use or state.state == "damaged" or run.manifest.exists():
        return []
    if _is_given_up(run, state, older_than):
        return [Removable(run, run.path, state.size, f"stopped at epoch {state.epoch} of {state.epochs}")]
    return [*_leftovers(run), *_unfinished_evaluations(run, older_than), *_optimiser_of(run, state)]


def _is_given_up(run: RunDir, state: RunState, older_than: float) -> bool:
    """Whether a run stopped long ago, and holds nothing but what training wrote: neither judgements nor other files."""
    if state.state != "stopped" or state.age < older_than or (run.path.parent / STUDY).exists():
        return False
    return _is_ours(run.path, OF_A_RUN)


def _is_ours(folder: Path, known: re.Pattern[str]) -> bool:
    """Whether a folder holds regular files of known names alone, beside locks and half-written files."""
    for path, about in files_of(folder):
        if not stat.S_ISREG(about.st_mode):
            return False
        name = path.relative_to(folder).as_posix()
        if not (known.fullmatch(name) or is_lock_file(path) or is_left_behind(path)):
            return False
    return not any(path.is_symlink() for path in folder.rglob("*"))


def _is_linked(run: RunDir, path: Path) -> bool:
    """Whether a path in a run folder is a link, or is reached by one."""
    return run.path.resolve() / path.relative_to(run.path) != path.resolve()


def _leftovers(run: RunDir) -> Iterator[Removable]:
    """Files that killed processes left half-written, and their locks."""
    for path, about in files_of(run.path):
        if not stat.S_ISREG(about.st_mode) or path == run.training_lock:
            continue
        if is_lock_file(path):
            yield Removable(run, path, about.st_size, "the lock of a process that is no more")
        elif is_left_behind(path):
            yield Removable(run, path, about.st_size, "a file that a killed process left half-written")


def _unfinished_evaluations(run: RunDir, older_than: float) -> Iterator[Removable]:
    """Evaluations without a result, to which nothing was added for long."""
    keys = {record.details.get("evaluation") for record in run.records()}
    for folder in run.evaluation_folders:
        size, changed = measure(folder)
        young = time.time() - changed < older_than
        if young or folder.name in keys or (folder / "result.json").exists() or _is_linked(run, folder):
            continue
        if _is_ours(folder, OF_AN_EVALUATION):
            yield Removable(run, folder, size, "an evaluation that was never finished")


def _optimiser_of(run: RunDir, state: RunState) -> Iterator[Removable]:
    """The state of the optimiser in the last checkpoint of a finished run, which only training goes on with."""
    last = run.checkpoint("last")
    if state.state != "finished" or _is_linked(run, last):
        return
    size = _bytes_beside_weights(last)
    if size:
        yield Removable(run, last, size, "the state of the optimiser, which a finished run needs no more")


def _bytes_beside_weights(file: Path) -> int:
    """The bytes of those tensors of a checkpoint that are no weights, from its header."""
    size = 0
    with safe_open(file, framework="np") as opened:
        for name in opened.keys():  # noqa: SIM118 (it is no mapping)
            if not name.startswith(checkpoint.WEIGHTS):
                tensor = opened.get_slice(name)
                bits = int(re.sub(r"\D", "", tensor.get_dtype()) or 8)  # of F32, BF16, I64; BOOL has 8
                size += math.prod(tensor.get_shape()) * bits // 8
    return size


def _remove(item: Removable) -> None:
    """Remove something, while the lock of its run is held."""
    if item.shrinks:
        checkpoint.drop_optimizer(item.path)
    elif is_lock_file(item.path):
        with suppress(Held), hold(item.path, str(item.path)):
            pass  # whoever holds a lock takes the file away at the end
    elif not item.path.is_dir():
        item.path.unlink(missing_ok=True)
    elif item.path == item.run.path:
        _remove_files(item.path, item.run.training_lock)
    else:
        with suppress(Held), hold(item.path / LOCK, str(item.path)):
            _remove_files(item.path, item.path / LOCK)
        with suppress(OSError):  # somebody has begun it anew
            item.path.rmdir()


def _remove_files(folder: Path, lock: Path) -> None:
    """Empty a folder but for the lock that is held, the configuration last, so that a kill leaves a run folder."""
    files = [path for path, _ in files_of(folder) if path != lock]
    for path in sorted(files, key=lambda path: path.name == "config.yaml"):
        path.unlink(missing_ok=True)
    for root, _, _ in os.walk(folder, topdown=False):
        if Path(root) != folder:
            Path(root).rmdir()
