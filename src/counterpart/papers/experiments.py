"""Experiments as data: rows (a recipe and what it changes), columns (attacks, or what a run says of itself), scales.

And what is known of an experiment so far: its records.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from .. import recipes
from ..config import Config, resolve
from ..dotted_names import flatten
from ..errors import UserError, nearest
from ..recipes import load
from ..records import Record, read
from ..renamed_settings import first_experiment_name, in_first_words
from ..rundir import RunDir
from .cells import SMOKE_STEPS, Column
from .folds import pooled
from .weights import ABSENT, by_weights, plain

NATURAL = "natural"
SCRATCH = "scratch"  # what a row starts from that takes no weights
OWN_PROTOCOL = "ours"  # of records without a mark, and of all scales but full


@dataclass(frozen=True)
class PaperRow:
    """One model of a table.

    Attributes:
        name: the paper's name for it.
        recipe: a recipe of the data set's folder: "part" is cifar10/part or svhn/part.
        changes: nested settings that differ from the recipe.
        images: what the row trains on where that is not the data set as it is, such as "pseudo-labelled".
        published: data set -> column -> per cent, or the column's unit; what the paper leaves out is missing.
        plus_minus: data set -> column -> what the paper prints behind +-, in the same unit.
        starts_from: the row whose best weights it goes on from, of the same seed and fold. ``SCRATCH``: no weights at
            all. None: what the settings say.
    """

    name: str
    recipe: str
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    images: str = ""
    plus_minus: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    starts_from: str | None = None


@dataclass(frozen=True)
class Drawing:
    """All that a function needs to draw the picture of a figure.

    Attributes:
        experiment: the figure.
        dataset: the data set that it is shown on.
        configs: row -> its settings, for the rows that were asked for.
        measured: (row, column) -> what was measured, of all rows.
        settings: the settings of an evaluation of these runs: where the data is, and which device.
    """

    experiment: "Experiment"
    dataset: str
    configs: Mapping[str, Config]
    measured: Mapping[tuple[str, str], Sequence[Record]]
    settings: Mapping[str, Any]

    @property
    def runs(self) -> dict[str, RunDir]:
        """Row -> its run."""
        return {name: RunDir(config.runs / str(config.name)) for name, config in self.configs.items()}


Draw = Callable[[Drawing, Path], str]
"""(what to draw, the PNG to write) -> its caption."""


@dataclass(frozen=True)
class PrimaryContrast:
    """The one comparison that an experiment is run for, declared before its runs.

    It is tested by itself, and the others, which are descriptive, by themselves.

    Attributes:
        first, second: the rows, the first minus the second.
        column: what they are compared by.
        margin: the difference that would matter, in (0, 1): within it, either way, is no difference.
    """

    first: str
    second: str
    column: str
    margin: float

    @property
    def key(self) -> tuple[str, str, str]:
        """(first row, second row, column), as differences are kept."""
        return self.first, self.second, self.column


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: its name, such as "pixel/table-1".
        title: what it shows.
        rows: its models.
        columns: its columns by name. An attack's surrogate may be a row. None: the figure shows data, and nothing is
            trained.
        evaluate: other settings of the evaluation, such as its radii.
        notes: what the paper leaves unknown, and what was chosen here.
        datasets: those that the paper shows; any data set with the recipes will do.
        corruptions: column -> accuracy of ``counterpart corruptions``, "snow/severity 1"; beside ``columns``.
            Where all are of severity 1, they are by the paper's protocol.
        pairs: pairs of rows whose difference is the point of the experiment. It is shown with an interval, image by
            image and seed by seed.
        primary: the contrast that was declared before the runs; it is among ``pairs``.
        margins: pair -> column -> the margin of equivalence, where the rows have no published numbers of their own.
        fresh: train each row in a process of its own, so that its peak memory is its own.
        draw: the function that makes the picture of a figure from the trained rows.
        scales: what each scale changes in its recipes.
        only_on: column -> the data sets that it is measured on, where these are not all.
        few: scale -> the number of images for what would take longer than all the rest: "autoattack", "corruptions".
        folds: the number of folds of a cross-validation, each of which is a run of its own, so that every image is
            judged once; 0: the data set's own test images.
        weights: the weights of each training that columns judge, names of ``WEIGHTS``: the first under the name of the
            column, the others under names of their own, "PGD-20 best". Corruptions are of those that ``evaluate``
            says. Empty: as ``evaluate`` says, and no others.
    """

    name: str
    title: str
    rows: Sequence[PaperRow]
    columns: Mapping[str, Column] | None
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    datasets: Sequence[str] = ("cifar10",)
    corruptions: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[tuple[str, str]] = ()
    primary: PrimaryContrast | None = None
    margins: Mapping[tuple[str, str], Mapping[str, float]] = field(default_factory=dict)
    fresh: bool = False
    draw: Draw | None = None
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: SCALES)
    only_on: Mapping[str, Sequence[str]] = field(default_factory=dict)
    few: Mapping[str, Mapping[str, int]] = field(
        default_factory=lambda: {"small": {"autoattack": 100, "corruptions": 500}}
    )
    folds: int = 0
    weights: Sequence[str] = ()


SCALES: dict[str, Mapping[str, Any]] = {
    # As the PART paper's code: no image is set aside, the last epoch is judged, and all arithmetic is float32.
    "full": {"data": {"validation": 0}, "train": {"precision": "float32"}, "evaluate": {"weights": "last"}},
    "full-ours": {},
    "small": {
        "model": {"width": 16},
        "train": {"epochs": 6, "validation_n": 500},
        "attack": {"steps": 5, "step_size": "4/255"},
        "optimizer": {"lr": 0.05, "schedule": "cosine"},
        "data": {"limit": 10000},
        "evaluate": {"n": 2000},
    },
    "smoke": {
        "model": {"name": "wrn-10-1", "width": 4},
        "train": {"epochs": 2, "batch_size": 32, "validation_n": 10, "validation_steps": 1},
        "data": {"limit": 64},
        "evaluate": {"n": 20},
    },
}
"""What each scale changes in a recipe.

full: the paper's size and protocol. full-ours: its size, with our choice of the epoch and our arithmetic, as in the
scales below. small: two cores for a quarter of an hour a row. smoke: seconds, to see that it runs.
"""
# The folder of a scale's runs and records. Before "full" followed the paper's protocol it was what full-ours is now.
FOLDERS = {"full": "full-published", "full-ours": "full"}
PROTOCOLS = {"full": "published", "full-ours": OWN_PROTOCOL}


def figure(experiment: Experiment, dataset: str, scale: str, home: Path) -> tuple[Path, str] | None:
    """The picture that was drawn last, and its caption."""
    drawn = [r for r in records_of(experiment, dataset, scale, home) if r.kind == "artifact"]
    if not drawn:
        return None
    return folder_of(home, scale) / drawn[-1].details["file"], drawn[-1].details["caption"]


def differs(experiment: Experiment, scale: str) -> str:
    """The changes that a scale makes, in words."""
    changed = ", ".join(f"{key} {value}" for key, value in flatten(experiment.scales[scale]).items())
    if not any(row.published for row in experiment.rows):
        return f"the recipes' settings{' but for ' if changed else ''}{changed}"
    if PROTOCOLS.get(scale, OWN_PROTOCOL) != OWN_PROTOCOL:
        return f"the paper's settings and protocol ({changed}), but for what the notes say"
    of_full = ", ".join(f"{key} {value}" for key, value in flatten(experiment.scales["full"]).items())
    return f"differs from the paper in {changed + ', and ' if changed else ''}lacking what scale full has, {of_full}"


def stated_on(experiment: Experiment, dataset: str) -> str | None:
    """The data set whose published numbers stand beside those measured on ``dataset``.

    It is ``dataset`` itself where the paper has it, else the paper's first. None where the paper prints no numbers.
    """
    known = [name for row in experiment.rows for name, values in row.published.items() if values]
    return next((name for name in (dataset, *experiment.datasets) if name in known), None)


def columns(experiment: Experiment, dataset: str | None = None) -> dict[str, Column]:
    """The columns of an experiment: natural accuracy, then those under attack, then those under corruptions.

    Natural accuracy is missing where no model is attacked. There are no columns where nothing is measured. With a data
    set, those are missing that are of other data sets alone.
    """
    if experiment.columns is None:
        return {}
    read = experiment.columns and all(callable(column) for column in experiment.columns.values())
    natural: dict[str, Column] = {} if read else {NATURAL: []}
    attacked = by_weights({**natural, **experiment.columns}, experiment.weights)
    named = {**attacked, **{column: [] for column in experiment.corruptions}}
    return {
        column: what
        for column, what in named.items()
        if dataset is None or dataset in experiment.only_on.get(plain(column), (dataset,))
    }


def measured(
    experiment: Experiment, dataset: str, scale: str, home: Path
) -> dict[tuple[str, str], list[Record]]:
    """(row, column) -> records, one for each seed, of all its folds together; what was not run is missing."""
    by_cell: dict[tuple[str, str], list[Record]] = {}
    for record in records_of(experiment, dataset, scale, home):
        row, _, column = record.name.rpartition("/")
        if record.kind not in ("artifact", ABSENT):
            by_cell.setdefault((row, column), []).append(record)
    return {cell: pooled(records) for cell, records in by_cell.items()}


def absent(experiment: Experiment, dataset: str, scale: str, home: Path) -> dict[tuple[str, str], str]:
    """(row, column) -> why there is no number, where a run lacks what the column judges."""
    by_cell = {}
    for record in records_of(experiment, dataset, scale, home):
        row, _, column = record.name.rpartition("/")
        if record.kind == ABSENT:
            by_cell[row, column] = record.details["reason"]
    return by_cell


def shown_name(column: str) -> str:
    """What a column is called beside our numbers: the minimum-margin attack is MM.

    The PART paper calls it MMA, which is the name of a training (Ding et al. 2020, arXiv 1812.02637). Records have the
    paper's name.
    """
    return re.sub(r"^MMA(?=[- ]|$)", "MM", column)


def chosen_rows(experiment: Experiment, names: Sequence[str]) -> list[PaperRow]:
    """The rows of some names; all rows where no name is given."""
    known = {row.name: row for row in experiment.rows}
    for name in names:
        if name not in known:
            raise UserError(f"{experiment.name} has no row {name!r}. {nearest(name, known)}")
    return [known[name] for name in names or known]


def chosen_columns(experiment: Experiment, names: Sequence[str], dataset: str) -> dict[str, Column]:
    """The columns of some names, or of the names that they are shown by; all columns where no name is given."""
    known = columns(experiment, dataset)
    shown_names = {shown_name(column): column for column in known}
    for name in names:
        if name not in known and name not in shown_names:
            raise UserError(f"{experiment.name} has no column {name!r}. {nearest(name, shown_names)}")
    return {name: known[name] for name in (shown_names.get(name, name) for name in names or known)}


def configuration(
    row: PaperRow,
    dataset: str,
    scale: str,
    home: Path,
    seed: int,
    changes: Mapping[str, Any],
    scales: Mapping[str, Mapping[str, Any]],
) -> Config:
    """The configuration of a row's run, from its recipe, its own changes, the scale, and the user's changes."""
    recipe = f"{dataset}/{row.recipe}"
    if recipe not in recipes.names():
        known = [name.rpartition("/")[0] for name in recipes.names() if name.endswith(f"/{row.recipe}")]
        raise UserError(
            f"data set {dataset} has no recipe {row.recipe!r}, which row {row.name} needs. {nearest(dataset, known)}"
        )
    changed = "".join(f"+{key}={value}" for key, value in flatten(in_first_words(row.changes)).items())
    changed += f"+{row.images.replace(' ', '-')}" if row.images else ""
    fold = changes.get("data", {}).get("fold")
    ending = "" if fold is None else f"-fold-{fold.replace('/', 'of')}"
    name = f"{recipe.replace('/', '-')}{changed.replace('/', 'of')}{_start(row)}-seed-{seed}{ending}"
    smoke: dict[str, Any] = {}

    def own_epochs(name: str) -> bool:
        """Whether a row has any epochs of a kind."""
        return bool(row.changes.get("train", {}).get(name, 1))

    if scale == "smoke":
        smoke = {
            "attack": _smoke_attack(row.changes.get("attack", {})),
            "data": {"limit": scales["smoke"]["data"]["limit"]},
            "train": {
                k: v for k, v in scales["smoke"]["train"].items() if k.endswith("epochs") and own_epochs(k)
            },
        }
    return resolve(
        load(recipe), scales[scale], row.changes, smoke, changes,
        {"seed": seed, "runs": str(folder_of(home, scale)), "name": name}, source=recipe,
    )  # fmt: skip


def _smoke_attack(attack: Mapping[str, Any]) -> dict[str, Any]:
    """What scale smoke changes in the attack of a row, which has these settings of its own."""
    changes = {} if attack.get("generation") == "n-fgsm" else {"steps": SMOKE_STEPS["steps"]}
    return {**changes, "eps_warmup": 1} if "eps_warmup" in attack else changes


def _start(row: PaperRow) -> str:
    """What a row starts from, for the name of its run."""
    return "" if row.starts_from is None else f"+from-{row.starts_from.replace(' ', '-').lower()}"


def key_of(row: PaperRow, column: str) -> str:
    """The name of the record of a cell."""
    return f"{row.name}/{column}"


def file_of(experiment: Experiment, dataset: str, scale: str, home: Path) -> Path:
    """Where an experiment's records lie; one that was begun under the experiment's first name goes on there."""
    names = [experiment.name, first_experiment_name(experiment.name)]
    files = [folder_of(home, scale) / f"{name.replace('/', '-')}-{dataset}.jsonl" for name in names]
    return files[1] if files[1].exists() and not files[0].exists() else files[0]


def folder_of(home: Path, scale: str) -> Path:
    """The folder of the runs and records of a scale."""
    return home / FOLDERS.get(scale, scale)


def marks_of(scale: str) -> dict[str, str]:
    """What a record says of the scale that it was measured at."""
    return {"scale": scale, **({"protocol": PROTOCOLS[scale]} if scale in PROTOCOLS else {})}


def records_of(experiment: Experiment, dataset: str, scale: str, home: Path) -> list[Record]:
    """The records of an experiment at a scale, but for those of another protocol or of a radius that it had before."""
    stored = read(file_of(experiment, dataset, scale, home))
    protocol = PROTOCOLS.get(scale, OWN_PROTOCOL)
    return [
        record
        for record in stored
        if record.details.get("protocol", OWN_PROTOCOL) == protocol and _has_radius(experiment, record)
    ]


def _has_radius(experiment: Experiment, record: Record) -> bool:
    """Whether a record was measured at the radius that the experiment names for its column, if it names one."""
    settings = columns(experiment).get(record.name.rpartition("/")[2])
    of_column = settings.get("eps") if isinstance(settings, Mapping) else None
    named, measured_at = of_column or experiment.evaluate.get("eps"), record.details.get("eps")
    if named is None or not isinstance(measured_at, float):
        return True
    return abs(float(Fraction(str(named))) - measured_at) < 1e-6
