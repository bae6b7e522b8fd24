"""Comparisons of an experiment's rows: tests over images and over seeds, and the best row of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

from ..errors import UserError, nearest
from ..records import Record
from ..statistics import FEWEST_TRAININGS, Difference, holm, paired_difference, welch
from .experiments import Experiment, PaperRow, columns
from .weights import plain

MeasuredCells = Mapping[tuple[str, str], Sequence[Record]]
"""(row, column) -> records, one for each seed."""


def differences(
    experiment: Experiment, measured: MeasuredCells
) -> dict[tuple[str, str, str], tuple[Difference, int, int]]:
    """(first row, second row, column) -> their difference, its seeds and its images, for the experiment's pairs.

    Seeds that only one row of a pair has, or that saw other images, do not count.
    """
    result = {}
    for first_row, second_row in experiment.pairs:
        for column in columns(experiment):
            first = _right_images(measured.get((first_row, column), ()))
            second = _right_images(measured.get((second_row, column), ()))
            both = [key for key in first if key in second]
            if both:
                outcomes = [(first[key], second[key]) for key in both]
                difference = paired_difference(outcomes)
                result[first_row, second_row, column] = difference, len(both), len(outcomes[0][0])
    return result


def _right_images(records: Sequence[Record]) -> dict[tuple[int | None, int | None, str | None], list[bool]]:
    """(seed, number of images, folds) -> whether the model was right on each image, of the records that say so."""
    right = {}
    for record in records:
        if "right" in record.details:
            right[record.seed, record.n, record.details.get("folds")] = [
                digit == "1" for digit in record.details["right"]
            ]
    return right


def seed_differences(
    experiment: Experiment, measured: MeasuredCells
) -> dict[tuple[str, str, str], tuple[Difference, int, int]]:
    """(first row, second row, column) -> Welch's test of their seeds, and how many each has, for each pair.

    Only pairs are tested whose rows have ``FEWEST_TRAININGS`` seeds or more each, on the same number of images.
    """
    result = {}
    for first_row, second_row in experiment.pairs:
        for column in columns(experiment):
            both = [measured.get((row, column), ()) for row in (first_row, second_row)]
            most = max((record.n or 0 for records in both for record in records), default=0)
            first, second = ([r.value or 0.0 for r in records if (r.n or 0) == most] for records in both)
            enough = min(len(first), len(second)) >= FEWEST_TRAININGS
            if enough and not any("unit" in r.details for r in both[0]):
                result[first_row, second_row, column] = welch(first, second), len(first), len(second)
    return result


class JudgedDifference(NamedTuple):
    """What a test says of a difference, in its family.

    Attributes:
        p: the p-value of no difference, corrected by Holm over the family.
        margin: the margin of equivalence that was stated; None for none.
        p_equivalent: the p-value of two one-sided tests against the margin, corrected likewise; None without one.
        alone: whether it is the primary contrast, a family of its own.
    """

    p: float
    margin: float | None
    p_equivalent: float | None
    alone: bool

    @property
    def differs(self) -> bool:
        """Whether a difference survives the correction."""
        return self.p < 0.05

    @property
    def equivalent(self) -> bool:
        """Whether it is shown that there is none beyond the margin."""
        return self.p_equivalent is not None and self.p_equivalent < 0.05


def judge(
    experiment: Experiment, dataset: str | None, differences: Mapping[tuple[str, str, str], Difference]
) -> dict[tuple[str, str, str], JudgedDifference]:
    """What the tests of one table say, corrected by Holm for how many the table shows.

    The primary contrast is a family of its own. Tests of a difference are one family, and those of equivalence another.

    Args:
        experiment: says the primary contrast and its margin, and the published numbers that other margins come from:
            half of the gain that the paper has.
        dataset: the data set of the published numbers; None for none.
        differences: the differences that the table shows.
    """
    primary = experiment.primary.key if experiment.primary else None
    verdicts = {}
    for family in (
        [key for key in differences if key == primary],
        [key for key in differences if key != primary],
    ):
        p_values = holm([differences[key].p for key in family])
        margins = {key: margin for key in family if (margin := _margin(experiment, dataset, key))}
        equivalences = holm([differences[key].p_equivalent(margin) for key, margin in margins.items()])
        p_equivalent = dict(zip(margins, equivalences, strict=True))
        for key, p in zip(family, p_values, strict=True):
            verdicts[key] = JudgedDifference(p, margins.get(key), p_equivalent.get(key), key == primary)
    return verdicts


def _margin(experiment: Experiment, dataset: str | None, key: tuple[str, str, str]) -> float | None:
    """The margin of a contrast: as declared, else half of the paper's gain; None where it has none."""
    if experiment.primary and key == experiment.primary.key:
        return experiment.primary.margin
    first, second, column = key
    column = plain(column)
    stated = experiment.margins.get((first, second), {}).get(column)
    if stated is not None:
        return stated
    published = {row.name: row.published.get(dataset or "", {}).get(column) for row in experiment.rows}
    higher, lower = published.get(first), published.get(second)
    if higher is None or lower is None or higher <= lower:
        return None
    return (higher - lower) / 200


def best_rows(experiment: Experiment, measured: MeasuredCells, column: str) -> Experiment:
    """The experiment with one row for each recipe: the one that is best by a column, as the part-model paper tunes.

    Rows of a recipe are compared on the seeds that all of its measured rows have; of equal rows the first wins. Each of
    the chosen rows is paired with the first of them.

    Raises:
        UserError: there is no such column, it is no share, or no row has been measured on it.
    """
    if column not in columns(experiment):
        raise UserError(f"{experiment.name} has no column {column!r}. {nearest(column, columns(experiment))}")
    recipes: dict[str, list[PaperRow]] = {}
    for row in experiment.rows:
        if (row.name, column) in measured:
            recipes.setdefault(row.recipe, []).append(row)
    if not recipes:
        raise UserError(f"no row of {experiment.name} has been measured on {column}: run it first.")
    chosen = []
    for recipe, rows in recipes.items():
        by_seed = [{r.seed: r.value or 0.0 for r in measured[row.name, column]} for row in rows]
        if any("unit" in r.details for r in measured[rows[0].name, column]):
            raise UserError(
                f"column {column} is no share, of which the largest is best: choose by another column."
            )
        shared = set.intersection(*(set(values) for values in by_seed))
        if not shared:
            raise UserError(
                f"rows of recipe {recipe} share no seed that was measured on {column}: run one seed of all of them."
            )
        means = [fmean(values[seed] for seed in shared) for values in by_seed]
        chosen.append(rows[means.index(max(means))])
    pairs = tuple((row.name, chosen[0].name) for row in chosen[1:])
    note = (
        f"Rows: of each recipe the best on {column}, of {', '.join(str(len(rows)) for rows in recipes.values())} that "
        f"were measured. Chosen by the images that they are shown on, so what stands under {column} is optimistic."
    )
    # rows that were chosen by their results are no contrast declared before
    return replace(experiment, rows=tuple(chosen), pairs=pairs, primary=None, notes=(note, *experiment.notes))
