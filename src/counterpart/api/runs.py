"""The function that lists run folders, and cleans them up: ``runs``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from ..jobs import cleaning
from ..jobs.cleaning import MONTH, Removable
from ..jobs.run_states import RunState, look_at_runs

UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
TITLES = ("state", "epoch", "validation", "judged", "size", "age", "run")  # names may be long


class Runs(Sequence[RunState]):
    """The run folders below a folder, by name, as they stood when they were listed.

    Attributes:
        folder: the folder.
        states: how each run stands.
    """

    def __init__(self, folder: Path, states: Sequence[RunState]) -> None:
        self.folder, self.states = folder, tuple(states)

    @overload
    def __getitem__(self, index: int) -> RunState: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[RunState]: ...

    def __getitem__(self, index: int | slice) -> RunState | Sequence[RunState]:
        return self.states[index]

    def __len__(self) -> int:
        return len(self.states)

    def __iter__(self) -> Iterator[RunState]:
        return iter(self.states)

    def removable(self, older_than: float = MONTH) -> list[Removable]:
        """What ``clean`` would remove now, with the bytes that each of it sets free. Nothing is removed.

        Args:
            older_than: the seconds for which nothing was written to what is unfinished. The default is 30 days.
        """
        return cleaning.removables(self.folder, older_than)

    def clean(self, older_than: float = MONTH) -> list[Removable]:
        """Remove what ``removable`` lists, and return it.

        That is: stopped runs, and evaluations without a result, to which nothing was written for so long; half-written
        files and locks of processes that are no more; and of finished runs the state of the optimiser in
        ``checkpoints/last.safetensors``, whose weights stay. Nothing goes of a run that is in use, damaged or shared,
        of a stopped trial of a sweep, or of a folder that holds files of other names, or links.
        """
        return cleaning.clean(self.folder, older_than)

    def __str__(self) -> str:
        rows = [TITLES, *map(_cells, self.states)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)

    def __repr__(self) -> str:
        return f"Runs({str(self.folder)!r}, {len(self)} runs)"


def runs(folder: str | Path = "runs") -> Runs:
    """The run folders below a folder: how far each came, how good it is, how large, and who is at it.

    Nothing is written, no code of yours is imported, and no link is followed.

    Args:
        folder: the folder of run folders, or one of them. Groups of seeds, trials of sweeps and runs of tables,
            which lie deeper, are listed too.

    Raises:
        UserError: the folder does not exist.
    """
    path = Path(folder).expanduser()
    return Runs(path, look_at_runs(path))


def size_in_words(size: float) -> str:
    """A number of bytes, such as 12.3 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def time_in_words(seconds: float) -> str:
    """A length of time in its largest unit, such as 3 d."""
    for length, unit in UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "0 s"


def _cells(state: RunState) -> tuple[str, ...]:
    """The line of a run in the table: accuracies are clean / robust, in per cent."""
    epoch = "" if state.epoch is None else f"{state.epoch} of {state.epochs}"
    name = f"{state.name} ({state.remark})" if state.remark else state.name
    return (
        state.state, epoch, _accuracies(state.clean, state.robust),
        _accuracies(state.judged_clean, state.judged_robust), size_in_words(state.size), time_in_words(state.age), name,
    )  # fmt: skip


def _accuracies(clean: float | None, robust: float | None) -> str:
    if clean is None and robust is None:
        return ""
    return " / ".join("-" if value is None else f"{100 * value:.1f}" for value in (clean, robust))
