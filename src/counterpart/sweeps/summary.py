"""The results of a sweep: its trials, the front, a plot of the trade-off, and a recipe for each point of the front."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..config import Config
from ..recipes import write_out
from ..rundir import write_atomically
from ..terminal import open_console
from .plot import draw_tradeoff
from .space import Space, apply, text_of
from .study import SharedStudy
from .trials import SweptTrial, front_of, in_order, read_trial, shorten

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

WIDTH = 110  # characters of a table that is written to no terminal


@dataclass(frozen=True)
class Sweep:
    """The trials of a sweep, those of other workers included.

    Attributes:
        path: the folder of the sweep.
        trials: the trials by number, whatever became of them.
        front: the trained trials that no other one beats in both accuracies, by robust accuracy, the highest first.
        plot: the picture of the trade-off; None before the first trial was trained.
        recipes: a recipe for each trial of the front, in the same order.
    """

    path: Path
    trials: tuple[SweptTrial, ...]
    front: tuple[SweptTrial, ...]
    plot: Path | None
    recipes: tuple[Path, ...]

    @property
    def best(self) -> SweptTrial | None:
        """The trial of the highest robust accuracy; None before the first was trained."""
        return self.front[0] if self.front else None

    def table(self) -> Table:
        """A line for each trial: trained ones by robust accuracy, then the others."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.settings))
        title = f"{self.path.name}: validation accuracy"
        table = Table(
            title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
        )
        headers = [name.replace(".", ".\n") for name in names]
        for header in ("trial", *headers, "natural", "robust", "95 % interval", "epochs", ""):
            table.add_column(header, overflow="fold")
        for trial in in_order(self.trials):
            state = "front" if trial in self.front else trial.state
            robust = trial.robust
            low, high = (0.0, 0.0) if robust is None else trial.interval(robust)
            table.add_row(
                trial.name,
                *(shorten(trial.settings.get(name, "")) for name in names),
                _percent(trial.natural),
                _percent(robust),
                "" if robust is None else f"{low:.1%} to {high:.1%}",
                str(trial.epochs),
                "" if state == "trained" else state,
            )
        return table

    def __str__(self) -> str:
        console = open_console(width=WIDTH)
        with console.capture() as written:
            console.print(self.table())
        return "\n".join(line.rstrip() for line in written.get().splitlines()).rstrip()


def summarise(shared: SharedStudy, config: Config, space: Space, n: int) -> Sweep:
    """What a study has reached, after its plot and its recipes were written.

    Args:
        shared: the study.
        config: the configuration that all trials share.
        space: the settings that vary.
        n: the number of validation images.
    """
    studied = shared.trials()
    trials = tuple(read_trial(trial, shared.folder, _texts(trial), n) for trial in studied)
    front, file = front_of(trials), shared.folder / "tradeoff.png"
    drawn = draw_tradeoff(trials, file)
    recipes = _write_recipes(shared, config, space, front)
    return Sweep(shared.folder, trials, front, file if drawn else None, recipes)


def _texts(trial: "FrozenTrial") -> dict[str, str]:
    return {name: text_of(value) for name, value in trial.params.items()}


def _write_recipes(
    shared: SharedStudy, config: Config, space: Space, front: Sequence[SweptTrial]
) -> tuple[Path, ...]:
    """Write a recipe for each trial of the front, and remove those of trials that are on it no more."""
    studied, folder = {trial.number: trial for trial in shared.trials()}, shared.folder / "recipes"
    files = tuple(folder / f"{trial.name}.yaml" for trial in front)
    for trial, file in zip(front, files, strict=True):
        values = {}
        for dimension in space.dimensions:
            value = studied[trial.number].params[dimension.name]
            values[dimension.name] = dimension.choices.get(value, value)
        named = config.model_copy(update={"name": f"{shared.folder.name}-{trial.name}", "runs": Path("runs")})
        settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
        about = (
            f"{trial.name} of the sweep {shared.folder.name}: {settings}. Validation accuracy: natural "
            f"{_percent(trial.natural)}, robust {_percent(trial.robust)}, on {trial.n:,} images."
        )
        _write_text(file, write_out(apply(named, values, space.name), about))
    for file in set(folder.glob("trial-*.yaml")) - set(files):
        file.unlink(missing_ok=True)
    return files


def _write_text(file: Path, text: str) -> None:
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"
