"""The cost of a run by its own records, and the cost of PART beyond the method that it builds on (table 9)."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from ..records import Record
from ..rundir import RunDir
from .experiments import Experiment, columns


def seconds_per_epoch(run: RunDir) -> Record:
    """The mean time of an epoch in seconds, validation included."""
    epochs = _epochs(run)
    seconds = [epoch.seconds or 0.0 for epoch in epochs]
    interval = (min(seconds), max(seconds))
    details = {**_about(run), "unit": "s", "interval": "fastest and slowest epoch"}
    return Record("timing", "seconds per epoch", fmean(seconds), len(epochs), interval, details=details)


def seconds_of_training(run: RunDir) -> Record:
    """The time of all epochs in seconds, validation included."""
    seconds = sum(epoch.seconds or 0.0 for epoch in _epochs(run))
    return Record("timing", "seconds of training", seconds, 1, details={**_about(run), "unit": "s"})


def peak_memory(run: RunDir) -> Record:
    """The most memory that the run's process held, in MB of 2**20 bytes.

    Runs compare only where each had a process of its own.
    """
    epochs = _epochs(run)
    cuda = epochs[-1].details["device"] == "cuda"
    what = "tensors on the GPU" if cuda else "resident memory of the whole process, libraries included"
    peak = max(epoch.details["peak_memory"] for epoch in epochs) / 2**20
    return Record("metric", "peak memory", peak, 1, details={**_about(run), "unit": "MB", "of": what})


def overheads(
    experiment: Experiment, dataset: str, measured: Mapping[tuple[str, str], Sequence[Record]]
) -> dict[tuple[str, str, str], tuple[float | None, float]]:
    """(first row, second row, column) -> by which share the first exceeds the second: (as published, as measured)."""
    published = {row.name: row.published.get(dataset, {}) for row in experiment.rows}
    result = {}
    for first, second in experiment.pairs:
        for column in columns(experiment):
            both = [measured.get((row, column)) for row in (first, second)]
            if not (both[0] and both[1] and "unit" in both[0][0].details):
                continue
            here = [fmean(record.value or 0.0 for record in records or ()) for records in both]
            there = [published[row].get(column) for row in (first, second)]
            stated = None if there[0] is None or there[1] is None else there[0] / there[1] - 1
            result[first, second, column] = stated, here[0] / here[1] - 1
    return result


def _epochs(run: RunDir) -> list[Record]:
    return [record for record in run.records() if record.kind == "epoch"]


def _about(run: RunDir) -> dict[str, object]:
    config = run.config()
    return {"model": config["model"]["name"], "batch_size": config["train"]["batch_size"]}
