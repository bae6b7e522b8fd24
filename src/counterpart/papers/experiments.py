"""What an experiment is, and how its rows are run: trained where they are not, evaluated, and kept as records.

An experiment is data: rows (a recipe and what it changes) and columns (attacks). A row is trained once per scale
and shared by every table that shows it.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import jobs, recipes
from ..config import Config, resolve
from ..errors import UserError, nearest
from ..recipes import load
from ..records import Record, read, write
from ..statistics import Difference, paired_difference

Attacks = Sequence[Mapping[str, Any]]
NATURAL = "natural"


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes:
        name: as the paper calls it.
        recipe: of the data set's folder: "part" is cifar10/part or svhn/part.
        changes: nested settings that differ from the recipe.
        published: data set -> column -> per cent; what the paper leaves out is missing.
    """

    name: str
    recipe: str
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: such as "pixel/table-1".
        title: what it shows.
        rows: its models.
        columns: name -> attacks, each alone on all images that the model gets right.
        evaluate: other settings of the evaluation, such as its radii.
        notes: what the paper leaves unknown, and what was chosen here.
        datasets: those that the paper shows; any data set with the recipes will do.
        pairs: rows whose difference is the point, (one, other): shown with an interval, image by image and seed by
            seed.
    """

    name: str
    title: str
    rows: Sequence[Row]
    columns: Mapping[str, Attacks]
    evaluate: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    datasets: Sequence[str] = ("cifar10",)
    pairs: Sequence[tuple[str, str]] = ()


SCALES: dict[str, Mapping[str, Any]] = {
    "full": {},
    "small": {
        "model": {"width": 8},
        "train": {"epochs": 6, "validation_n": 500},
        "attack": {"steps": 5, "step_size": "4/255"},
        "optimizer": {"lr": 0.05, "schedule": "cosine"},
        "data": {"limit": 10000},
        "evaluate": {"n": 2000},
    },
    "smoke": {
        "model": {"width": 8},
        "train": {"epochs": 2, "batch_size": 32, "validation_n": 32, "validation_steps": 1},
        "data": {"limit": 128},
        "evaluate": {"n": 20},
    },
}
"""What each scale changes in a recipe: the paper's size; two cores for a quarter of an hour a row; and seconds, to see
that it runs.
"""

AUTOATTACK_N = {"small": 200}
"""Images of an AutoAttack column where it would take longer than all the rest."""

SMOKE_STEPS = {"steps": 2, "queries": 20, "draws": 2}


def run(
    experiment: Experiment,
    dataset: str,
    scale: str,
    home: Path,
    *,
    rows: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Train and evaluate the rows that are not measured yet.

    Args:
        experiment: which.
        dataset: folder of recipes: "cifar10", "svhn", "tiny-imagenet" or "digits".
        scale: of ``SCALES``.
        home: where run folders and records go.
        rows: names of rows; all by default.
        seeds: each is a run of its own.
        changes: nested settings for every row, such as {"data": {"root": ...}}.

    Raises:
        UserError: an unknown row, no such recipe for the data set, or what training and evaluation refuse.
    """
    for row in chosen_rows(experiment, rows):
        for seed in seeds:
            done = {(r.name, r.seed) for r in _records(experiment, dataset, scale, home)}
            missing = {c: a for c, a in columns(experiment).items() if (_key(row, c), seed) not in done}
            if not missing:
                continue
            config = configuration(row, dataset, scale, home, seed, changes or {})
            trained = jobs.train(config)
            if not trained.finished:
                raise UserError("train.stop_after ended the experiment; the same command continues.")
            for column, attacks in missing.items():
                given = {
                    "evaluate": {
                        **experiment.evaluate,
                        "attacks": [_at_scale(attack, scale) for attack in attacks],
                        "n": _images(config, attacks, scale),
                        "individual": True,
                    },
                    "data": {"root": config.data.root},
                }
                [judged] = jobs.evaluate(str(trained.run.path), given)
                found = next(r for r in judged.records if r.name == "accuracy/worst case")
                table = judged.run.path / "evaluations" / found.details["evaluation"] / "images.csv"
                details = {**found.details, "scale": scale, "right": _right(table)}
                kept = replace(found, name=_key(row, column), seed=seed, details=details)
                write(_file(experiment, dataset, scale, home), [kept])


def differs(scale: str) -> str:
    """What a scale changes, in words."""
    changed = ", ".join(f"{key} {value}" for key, value in _flat(SCALES[scale]))
    return f"differs from the paper in {changed}" if changed else "the paper's settings"


def columns(experiment: Experiment) -> dict[str, Attacks]:
    """Natural accuracy, which no attack lowers, and then the attacks."""
    return {NATURAL: [], **experiment.columns}


def measured(
    experiment: Experiment, dataset: str, scale: str, home: Path
) -> dict[tuple[str, str], list[Record]]:
    """(row, column) -> records, one per seed; what was not run is missing."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in _records(experiment, dataset, scale, home):
        row, _, column = record.name.rpartition("/")
        found.setdefault((row, column), []).append(record)
    return found


def differences(
    experiment: Experiment, found: Mapping[tuple[str, str], Sequence[Record]]
) -> dict[tuple[str, str, str], tuple[Difference, int, int]]:
    """(one row, other row, column) -> their difference, its seeds and its images, for the experiment's pairs.

    Seeds that only one row of a pair has, or that saw other images, do not count.
    """
    result = {}
    for one, other in experiment.pairs:
        for column in columns(experiment):
            first, second = (
                {
                    (r.seed, r.n): r.details["right"]
                    for r in found.get((row, column), ())
                    if "right" in r.details
                }
                for row in (one, other)
            )
            both = [key for key in first if key in second]
            if both:
                outcomes = [([c == "1" for c in first[k]], [c == "1" for c in second[k]]) for k in both]
                result[one, other, column] = paired_difference(outcomes), len(both), len(outcomes[0][0])
    return result


def chosen_rows(experiment: Experiment, names: Sequence[str]) -> list[Row]:
    """The rows of some names, all where none is given."""
    known = {row.name: row for row in experiment.rows}
    for name in names:
        if name not in known:
            raise UserError(f"{experiment.name} has no row {name!r}. {nearest(name, known)}")
    return [known[name] for name in names or known]


def configuration(
    row: Row, dataset: str, scale: str, home: Path, seed: int, changes: Mapping[str, Any]
) -> Config:
    """The run of a row: its recipe, what the row changes, the scale, and what the user changes."""
    recipe = f"{dataset}/{row.recipe}"
    if recipe not in recipes.names():
        raise UserError(f"data set {dataset} has no recipe {row.recipe!r}, which row {row.name} needs.")
    own = "".join(f"+{key}={value}" for key, value in _flat(row.changes))
    name = f"{recipe.replace('/', '-')}{own.replace('/', 'of')}-seed-{seed}"
    smoke = {"attack": {"steps": SMOKE_STEPS["steps"]}} if scale == "smoke" else {}
    return resolve(
        load(recipe), SCALES[scale], row.changes, smoke, changes,
        {"seed": seed, "runs": str(home / scale), "name": name}, source=recipe,
    )  # fmt: skip


def _flat(changes: Mapping[str, Any], head: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in changes.items():
        found += _flat(value, f"{head}{key}.") if isinstance(value, Mapping) else [(f"{head}{key}", value)]
    return found


def _at_scale(attack: Mapping[str, Any], scale: str) -> dict[str, Any]:
    """At smoke scale the attacks that can be are cut short as well; its numbers mean nothing anyway."""
    if scale != "smoke":
        return dict(attack)
    if attack["attack"] == "autoattack":
        return {"attack": "apgd", "steps": SMOKE_STEPS["steps"]}
    return {k: min(v, SMOKE_STEPS[k]) if k in SMOKE_STEPS else v for k, v in attack.items()}


def _images(config: Config, attacks: Attacks, scale: str) -> int | None:
    """How many images a column is measured on."""
    slow = AUTOATTACK_N.get(scale) if any(attack["attack"] == "autoattack" for attack in attacks) else None
    counts = [count for count in (config.evaluate.n, slow) if count is not None]
    return min(counts, default=None)


def _right(table: Path) -> str:
    """A digit per image of an evaluation, in its order, 1 where the model stood: so records alone can be paired."""
    with table.open(newline="", encoding="utf-8") as file:
        return "".join("0" if line["first_fooled_by"] else "1" for line in csv.DictReader(file))


def _key(row: Row, column: str) -> str:
    return f"{row.name}/{column}"


def _file(experiment: Experiment, dataset: str, scale: str, home: Path) -> Path:
    return home / scale / f"{experiment.name.replace('/', '-')}-{dataset}.jsonl"


def _records(experiment: Experiment, dataset: str, scale: str, home: Path) -> list[Record]:
    return read(_file(experiment, dataset, scale, home))
