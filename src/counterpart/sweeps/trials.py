"""What became of the trials of a sweep, and which of them no other trial beats in both accuracies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..statistics import wilson

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES = {
    "COMPLETE": "trained",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}


@dataclass(frozen=True)
class SweptTrial:
    """A trial of a sweep. Its accuracies are those of the validation images.

    Attributes:
        number: the number of the trial, from 0 on.
        path: the run folder. On another machine that shares no folder it may lie there alone.
        settings: {dotted name: text of its value} of the settings that vary.
        state: "trained", "pruned", "failed", "running" or "waiting".
        natural: the natural accuracy of the best weights; of a pruned trial, after its last epoch.
        robust: the robust accuracy of the same weights.
        n: the number of validation images.
        epochs: the number of epochs that were validated.
        why: the reason why the trial failed.
    """

    number: int
    path: Path
    settings: Mapping[str, str]
    state: str
    natural: float | None = None
    robust: float | None = None
    n: int = 0
    epochs: int = 0
    why: str | None = None

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.path.name

    def interval(self, accuracy: float) -> tuple[float, float]:
        """The 95 % interval of an accuracy over the images."""
        return wilson(round(accuracy * self.n), self.n)


def shorten(text: str) -> str:
    """The text of a value as tables and pictures have it: of a number with many digits, three that count."""
    try:
        short = f"{float(text):.3g}"
    except ValueError:
        return text
    return short if len(short) < len(text) else text


def name_trial(number: int) -> str:
    """The name of a trial's run folder, within the folder of the sweep."""
    return f"trial-{number:04}"


def read_trial(trial: "FrozenTrial", folder: Path, settings: Mapping[str, str], n: int) -> SweptTrial:
    """What a study knows of a trial."""
    naturals: Sequence[float] = trial.user_attrs.get("naturals", [])
    last = trial.last_step
    natural, robust = trial.user_attrs.get("natural"), trial.value
    if robust is None and last is not None:
        robust = trial.intermediate_values[last]
    if natural is None and naturals:
        natural = naturals[-1]
    return SweptTrial(
        trial.number,
        folder / name_trial(trial.number),
        settings,
        STATES[trial.state.name],
        natural,
        robust,
        n,
        epochs=0 if last is None else last + 1,
        why=trial.user_attrs.get("why"),
    )


def front_of(trials: Sequence[SweptTrial]) -> tuple[SweptTrial, ...]:
    """The trained trials that no other one beats: none is as good in both accuracies and better in one.

    They are in the order of robust accuracy, the highest first. Of trials that are equal in both, all are in.
    """
    trained = [trial for trial in trials if trial.state == "trained"]
    survivors = [trial for trial in trained if not any(_beats(other, trial) for other in trained)]
    return tuple(sorted(survivors, key=_by_robust))


def in_order(trials: Sequence[SweptTrial]) -> list[SweptTrial]:
    """Trained trials by robust accuracy, the highest first, then the others by number."""
    others = [trial for trial in trials if trial.state != "trained"]
    return [*sorted((trial for trial in trials if trial.state == "trained"), key=_by_robust), *others]


def _beats(other: SweptTrial, trial: SweptTrial) -> bool:
    accuracies, theirs = (trial.natural or 0, trial.robust or 0), (other.natural or 0, other.robust or 0)
    no_worse = theirs[0] >= accuracies[0] and theirs[1] >= accuracies[1]
    return no_worse and theirs != accuracies


def _by_robust(trial: SweptTrial) -> tuple[float, float, int]:
    return (-(trial.robust or 0), -(trial.natural or 0), trial.number)
