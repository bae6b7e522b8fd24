"""The numbers of the page: runs grouped over seeds and folds, accuracies with intervals, and which of these overlap."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from ..numerals import read_fold
from ..records import CLEAN, WORST, Record
from ..statistics import (
    FEWEST_TRAININGS,
    over_folds,
    over_seeds,
    weighted_over_folds,
)
from .runs import Evaluation, Run
from .setting import Setting, radius_text

MIOU = "mIoU"


@dataclass(frozen=True)
class TableAccuracy:
    """A share of images or of pixels, over one or more seeds.

    Attributes:
        value: the mean over the seeds, in [0, 1].
        low, high: the ends of the 95 % interval, or None where a record has none. Over several seeds it is
            computed as in ``statistics.over_seeds``.
        sd: the standard deviation over the seeds, or None for one seed.
        points: the values of the seeds, where these are too few for an interval over trainings.
        estimated: whether the value, or that of some seed, is an estimate from a sample of the survivors.
        of_these_images: of an estimate of one run, the 95 % interval of what its very images would give.
    """

    value: float
    low: float | None
    high: float | None
    sd: float | None = None
    points: Sequence[float] = ()
    estimated: bool = False
    of_these_images: Sequence[float] | None = None


@dataclass(frozen=True)
class TableRow:
    """Runs that differ in nothing but their seed, and their fold of a cross-validation.

    The folds of a seed are pooled first: they judge different images, whose counts add up.

    Attributes:
        method: how the model was trained, or the run's name where no evaluation says so.
        runs: the runs, one per seed and fold.
        label: the method, made unique by the run's name where two rows share it.
    """

    method: str
    runs: Sequence[Run]
    label: str

    @property
    def name(self) -> str:
        """The name of the run; for several runs that of their group folder, or of the first "and others"."""
        if len(self.runs) == 1:
            return self.runs[0].name
        heads = {run.name.rpartition("/")[0] for run in self.runs}
        return heads.pop() if len(heads) == 1 and "" not in heads else f"{self.runs[0].name} and others"

    @property
    def shown(self) -> list[Evaluation]:
        """The evaluation that is shown of every run; empty if none is evaluated."""
        return [run.shown for run in self.runs if run.shown]

    @property
    def of_parts(self) -> list[Evaluation]:
        """For every run the evaluation that measured parts; empty where none did."""
        return [run.of_parts for run in self.runs if run.of_parts]

    @property
    def of_radii(self) -> list[Evaluation]:
        """For every run the evaluation at several radii; empty where there is none."""
        return [run.of_radii for run in self.runs if run.of_radii]

    @property
    def seeds(self) -> str:
        """The seeds as a text, such as "0, 1, 2"."""
        seeds = dict.fromkeys(run.seed for run in self.runs)
        return ", ".join("unknown" if seed is None else str(seed) for seed in seeds)

    @property
    def seed_count(self) -> int:
        """The number of seeds."""
        return len({run.seed for run in self.runs})

    @property
    def folds(self) -> str:
        """The folds in words, such as "folds 1, 2 of 5"; "" without any."""
        return _folds_text([run.fold for run in self.runs if run.fold is not None])

    @property
    def setting(self) -> "Setting":
        """The setting in which the runs were judged."""
        return replace(Setting.of(self.shown[0]), folds=self.folds)

    @property
    def setting_of_parts(self) -> "Setting":
        """The setting in which the parts were judged.

        It may be that of another evaluation than the one that is shown.
        """
        return replace(Setting.of(self.of_parts[0]), folds=self.folds)

    @property
    def setting_of_radii(self) -> "Setting":
        """The setting in which the curve over radii was judged."""
        return replace(Setting.of(self.of_radii[0]), folds=self.folds)

    @property
    def lines_of_radii(self) -> list[str]:
        """The names of the lines that have a curve over radii, the worst case last."""
        return [name for name in self.of_radii[0].metrics if name != CLEAN]

    @property
    def part_labels(self) -> str:
        """What the parts were compared with: "boxes", or "" where it is their masks."""
        [*_, last] = self.of_parts[0].parts.values()
        return str(last.details.get("labels", ""))

    @property
    def eps_low(self) -> str | None:
        """The value of eps_low that a search had reached when training ended, for each seed that searched.

        None if no seed searched.
        """
        last = [run.epochs[-1].details.get("eps_low") for run in self.runs if run.epochs]
        radii = [radius_text(radius) for radius in last if radius is not None]
        return ", ".join(radii) or None

    @property
    def n(self) -> int:
        """The number of images that each run was judged on, or all folds of a seed together."""
        return self.images_of([evaluation.n for evaluation in self.shown])

    @property
    def n_of_parts(self) -> int:
        """The number of annotated images that the parts were judged on."""
        return self.images_of([next(iter(evaluation.parts.values())).n or 0 for evaluation in self.of_parts])

    @property
    def n_of_radii(self) -> int:
        """The number of images that the curve over radii was judged on."""
        return self.images_of([evaluation.n for evaluation in self.of_radii])

    def images_of(self, counts: Sequence[int]) -> int:
        """The number of images of the first seed, from those of each run."""
        return sum(n for run, n in zip(self.runs, counts, strict=True) if run.seed == self.runs[0].seed)

    @property
    def training_seconds(self) -> float | None:
        """The seconds of training, as the mean over the seeds that recorded them."""
        return _mean([run.training_seconds for run in self.runs])

    @property
    def evaluation_seconds(self) -> float | None:
        """The seconds of evaluation, as the mean over the seeds that recorded them."""
        return _mean([evaluation.seconds for evaluation in self.shown])

    def values(self, name: str) -> list[float]:
        """The value of the named metric for each seed; empty unless all seeds have it."""
        measured = self._by_seed([evaluation.metrics.get(name) for evaluation in self.shown])
        values = [value for value, _ in filter(None, measured) if value is not None]
        return values if len(values) == len(measured) else []

    def accuracy(self, name: str) -> TableAccuracy | None:
        """The named metric over the seeds, or None where some seed did not measure it."""
        records = [evaluation.metrics.get(name) for evaluation in self.shown]
        accuracy = _over_seeds(self._by_seed(records))
        estimates = [
            record.details["estimate"] for record in records if record and "estimate" in record.details
        ]
        if accuracy is None or not estimates:
            return accuracy
        bounds = estimates[0]["of_these_images"] if len(records) == 1 else None
        return replace(accuracy, estimated=True, of_these_images=bounds)

    def part_metric(self, name: str) -> TableAccuracy | None:
        """The named metric of the parts over the seeds, or None where some seed did not measure it."""
        records = [evaluation.parts.get(name) for evaluation in self.of_parts]
        return _over_seeds(self._by_seed(records, of_images=False))

    def _by_seed(self, records: Sequence[Record | None], of_images: bool = True) -> "list[Measured | None]":
        """The result of each seed, of its folds together, from the records of all runs."""
        folds: dict[int | None, list[Record | None]] = {}
        for run, record in zip(self.runs, records, strict=True):
            folds.setdefault(run.seed, []).append(record)
        if not self.folds:
            return [_measured(record) for record in records]
        return [_pooled(of_seed, of_images) for of_seed in folds.values()]

    def curve(self, line: str) -> dict[float, TableAccuracy]:
        """A mapping from each radius that every seed has, rising, to the accuracy of a line there.

        The clean accuracy stands at radius 0.
        """
        points = {
            0.0: _over_seeds(self._by_seed([evaluation.metrics.get(CLEAN) for evaluation in self.of_radii]))
        }
        for radius in self.of_radii[0].smaller:
            at = [evaluation.smaller.get(radius, {}).get(line) for evaluation in self.of_radii]
            points[radius] = _over_seeds(self._by_seed(at))
        last = [evaluation.metrics.get(line) for evaluation in self.of_radii]
        points[float(self.of_radii[0].details["eps"])] = _over_seeds(self._by_seed(last))
        return {radius: accuracy for radius, accuracy in points.items() if accuracy is not None}

    def per_part(self, how: str) -> dict[str, tuple[TableAccuracy, int]]:
        """A mapping from each part to its intersection over union and the number of images that show it.

        Parts that some seed neither finds nor has to find are left out.

        Args:
            how: the images that were judged, such as "clean" or "under PGD-20".
        """
        records = [evaluation.parts.get(f"{MIOU} {how}") for evaluation in self.of_parts]
        tables = [(record.details.get("per_part") or {}) if record else {} for record in records]
        shares = {}
        for part in dict.fromkeys(part for table in tables for part in table):
            showing = [
                (run, _as_record(table[part]))
                for run, table in zip(self.runs, tables, strict=True)
                if part in table
            ]
            row = replace(self, runs=[run for run, _ in showing])
            # every seed has to show the part, but not in every fold
            if row.seed_count < self.seed_count or not (self.folds or len(showing) == len(self.runs)):
                continue
            share = _over_seeds(row._by_seed([record for _, record in showing], of_images=False))
            if share is not None:
                shares[part] = (share, row.images_of([record.n or 0 for _, record in showing]))
        return shares

    @property
    def chance(self) -> float | None:
        """What always answering the most frequent class reaches, in [0, 1]; None where classes are not known."""
        counts = (
            [n for _, n in self.per_class(self.shown[0].first.name.partition("/")[2]).values()]
            if self.shown
            else []
        )
        if len(counts) < 2 or not sum(counts):
            return None
        return max(counts) / sum(counts)

    def per_class(self, name: str) -> dict[str, tuple[float, int]]:
        """A mapping from each class to its number of correct images and of all images, summed over seeds."""
        total: dict[str, tuple[float, int]] = {}
        for evaluation in self.shown:
            record = evaluation.metrics.get(name)
            for cls, (correct, n) in (record.details.get("per_class") or {}).items() if record else ():
                before = total.get(cls, (0, 0))
                total[cls] = (before[0] + correct, before[1] + n)
        return total


Measured = tuple[float | None, Sequence[float] | None]  # a share and the ends of its interval


def _measured(record: Record | None) -> Measured | None:
    """The value and the interval of a record."""
    return None if record is None else (record.value, record.interval)


def accuracy_of(record: Record) -> TableAccuracy | None:
    """The accuracy that a record of one run says."""
    return _over_seeds([_measured(record)])


def _as_record(part: Mapping[str, Any]) -> Record:
    """The intersection over union of a part as a record."""
    ends = part["interval"]
    return Record("metric", MIOU, part["iou"], int(part["n"]), None if ends is None else (ends[0], ends[1]))


def _pooled(records: Sequence[Record | None], of_images: bool) -> Measured | None:
    """The result of some folds together, which is None where a fold lacks its own.

    Shares of images become one share of all. Others, such as shares of pixels and estimates, are averaged.
    """
    of_images = of_images and not any(record and "estimate" in record.details for record in records)
    shares = [(record.value, record.n, record.interval) for record in records if record is not None]
    known = [(value, n, interval) for value, n, interval in shares if value is not None and n is not None]
    if len(known) < len(records):
        return None
    if of_images:
        return over_folds([(value, n) for value, n, _ in known])
    ends = [(value, n, None if pair is None else (pair[0], pair[1])) for value, n, pair in known]
    return weighted_over_folds(ends)


def _folds_text(folds: Sequence[str]) -> str:
    """Folds in words: "folds 1, 2 of 5"; "" for none."""
    if not folds:
        return ""
    numbers = sorted({read_fold(fold)[0] for fold in folds})
    count = read_fold(folds[0])[1]
    if len(numbers) == count:
        return f"all {count} folds"
    return f"{'fold' if len(numbers) == 1 else 'folds'} {', '.join(map(str, numbers))} of {count}"


def _over_seeds(measured: Sequence[Measured | None]) -> TableAccuracy | None:
    """The results of all seeds as one accuracy; None where a seed lacks its result."""
    values = [value for value, _ in filter(None, measured) if value is not None]
    intervals = [(ends[0], ends[1]) for _, ends in filter(None, measured) if ends is not None]
    if not values or len(values) < len(measured):
        return None
    known = len(intervals) == len(values)
    value, sd, interval, _ = over_seeds(values, intervals if known else ())
    low, high = interval if known and interval else (None, None)
    points = values if 1 < len(values) < FEWEST_TRAININGS else ()
    return TableAccuracy(value, low, high, sd, points)


def metric_names(rows: Sequence[TableRow]) -> list[str]:
    """The names of the columns: clean accuracy, then the attacks in their order, then the worst case."""
    names = dict.fromkeys(name for row in rows for evaluation in row.shown for name in evaluation.metrics)
    attacks = [name for name in names if name not in (CLEAN, WORST)]
    return [n for n in (CLEAN, *attacks, WORST) if n in names]


def part_metrics(rows: Sequence[TableRow]) -> tuple[list[str], list[str]]:
    """The metrics of parts, such as "pixel accuracy", and the images judged, such as "clean", in order."""
    names = dict.fromkeys(name for row in rows for evaluation in row.of_parts for name in evaluation.parts)
    pairs = [re.split(r" (?=clean$|under )", name, maxsplit=1) for name in names]
    return list(dict.fromkeys(metric for metric, _ in pairs)), list(dict.fromkeys(how for _, how in pairs))


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _mean(seconds: Sequence[float | None]) -> float | None:
    """The mean of those durations that are known, or None where none is."""
    known = [duration for duration in seconds if duration is not None]
    return fmean(known) if known else None
