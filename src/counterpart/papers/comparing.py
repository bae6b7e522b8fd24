"""What the records of an experiment say of its rows together: tests over images and seeds, and the best of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from ..errors import UserError, nearest
from ..records import Record
from ..statistics import Difference, Welch, paired_difference, welch
from .experiments import Experiment, PaperRow, columns

Found = Mapping[tuple[str, str], Sequence[Record]]


def differences(
    experiment: Experiment, found: Found
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


def seed_differences(
    experiment: Experiment, found: Found
) -> dict[tuple[str, str, str], tuple[Welch, int, int]]:
    """(one row, other row, column) -> Welch's test of their seeds, and how many each has, for the experiment's pairs.

    Where both rows have two seeds or more on as many images.
    """
    result = {}
    for one, other in experiment.pairs:
        for column in columns(experiment):
            both = [found.get((row, column), ()) for row in (one, other)]
            most = max((record.n or 0 for records in both for record in records), default=0)
            first, second = ([r.value or 0.0 for r in records if (r.n or 0) == most] for records in both)
            if min(len(first), len(second)) > 1 and not any("unit" in r.details for r in both[0]):
                result[one, other, column] = welch(first, second), len(first), len(second)
    return result


def best_rows(experiment: Experiment, found: Found, column: str) -> Experiment:
    """The experiment with one row for each recipe: the one that is best by a column, as the part-model paper tunes.

    Rows of a recipe are compared on the seeds that all of its measured rows have; of equal ones the first wins. Each
    row that is left is paired with the first of them.

    Raises:
        UserError: there is no such column, it is no share, or no row has been measured on it.
    """
    if column not in columns(experiment):
        raise UserError(f"{experiment.name} has no column {column!r}. {nearest(column, columns(experiment))}")
    recipes: dict[str, list[PaperRow]] = {}
    for row in experiment.rows:
        if (row.name, column) in found:
            recipes.setdefault(row.recipe, []).append(row)
    if not recipes:
        raise UserError(f"no row of {experiment.name} has been measured on {column}: run it first.")
    chosen = []
    for recipe, rows in recipes.items():
        values = [{r.seed: r.value or 0.0 for r in found[row.name, column]} for row in rows]
        if any("unit" in r.details for r in found[rows[0].name, column]):
            raise UserError(
                f"column {column} is no share, of which the largest is best: choose by another column."
            )
        shared = set.intersection(*(set(one) for one in values))
        if not shared:
            raise UserError(
                f"rows of recipe {recipe} share no seed that was measured on {column}: run one seed of all of them."
            )
        means = [fmean(one[seed] for seed in shared) for one in values]
        chosen.append(rows[means.index(max(means))])
    pairs = tuple((row.name, chosen[0].name) for row in chosen[1:])
    note = (
        f"Rows: of each recipe the best on {column}, of {', '.join(str(len(rows)) for rows in recipes.values())} that "
        f"were measured. Chosen by the images that they are shown on, so what stands under {column} is optimistic."
    )
    return replace(experiment, rows=tuple(chosen), pairs=pairs, notes=(note, *experiment.notes))
