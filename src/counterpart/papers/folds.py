"""The folds of a cross-validation as one record: each judges other images, so that their counts add up."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from ..numerals import read_fold
from ..records import Record
from ..statistics import over_folds, weighted_over_folds


def pooled(records: Sequence[Record]) -> list[Record]:
    """The records of a cell, with one record for each seed in place of those of its folds.

    Shares of images become one share of all images, and their answers stand in the order of the folds. Other shares,
    such as intersections over unions, become a mean that is weighted by the numbers of images, and what has a unit,
    such as seconds, becomes the mean of a fold. ``folds`` in the details says which folds there are, such as
    "1,2,5 of 5".
    """
    plain = [record for record in records if record.details.get("fold") is None]
    by_seed: dict[int | None, list[Record]] = {}
    for record in records:
        if record.details.get("fold") is not None:
            by_seed.setdefault(record.seed, []).append(record)
    return plain + [_pool(of_seed) for of_seed in by_seed.values()]


def _pool(records: Sequence[Record]) -> Record:
    """One record of the folds of a seed; of a fold that was measured again, the latest counts.

    Folds of another number of folds than the latest record's hold the same images again, and do not count.
    """
    latest = {read_fold(record.details["fold"]): record for record in records}
    _, count = read_fold(records[-1].details["fold"])
    folds = sorted(fold for fold in latest if fold[1] == count)
    of_folds = [latest[fold] for fold in folds]
    n = sum(record.n or 0 for record in of_folds)
    details = {
        name: value
        for name, value in of_folds[0].details.items()
        if name not in ("fold", "right", "per_class", "per_part", "fingerprint", "evaluation")
    }
    details["folds"] = f"{','.join(str(number) for number, _ in folds)} of {count}"
    if all("right" in record.details for record in of_folds):
        details["right"] = "".join(record.details["right"] for record in of_folds)
        value, interval = over_folds([(record.value or 0.0, record.n or 0) for record in of_folds])
    elif "unit" in details:
        value, interval = fmean(record.value or 0.0 for record in of_folds), None
    else:
        shares = [(record.value or 0.0, record.n or 0, record.interval) for record in of_folds]
        value, interval = weighted_over_folds(shares)
    seconds = [record.seconds for record in of_folds if record.seconds is not None]
    return replace(
        of_folds[0],
        value=value,
        n=n,
        interval=interval,
        details=details,
        seconds=sum(seconds) if seconds else None,
    )
