"""One number for several seeds: what the group's records and the report both say."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.special import stdtrit


class OverSeeds(NamedTuple):
    """A share over seeds.

    Attributes:
        mean: in [0, 1].
        sd: standard deviation, None for one seed.
        interval: 95 % interval, None where nothing is known of the spread.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None


def over_seeds(values: Sequence[float], intervals: Sequence[tuple[float, float]] = ()) -> OverSeeds:
    """Mean, standard deviation and 95 % interval of shares that differ in their seed.

    Args:
        values: one per seed, in [0, 1].
        intervals: of each value, for the draw of its images; or none.

    Returns:
        The interval adds two spreads in squares: the mean half-width of ``intervals`` (which images were drawn)
        and Student's t over the seeds (how training fell).
    """
    if intervals and len(intervals) != len(values):
        raise ValueError(f"{len(values)} values need as many intervals or none, got {len(intervals)}.")
    n, mean = len(values), fmean(values)
    sd = stdev(values) if n > 1 else None
    if sd is None and not intervals:
        return OverSeeds(mean, None, None)
    training = 0.0 if sd is None else float(stdtrit(n - 1, 0.975)) * sd / math.sqrt(n)
    below = above = 0.0
    if intervals:
        below = fmean(value - low for value, (low, _) in zip(values, intervals, strict=True))
        above = fmean(high - value for value, (_, high) in zip(values, intervals, strict=True))
    low, high = mean - math.hypot(below, training), mean + math.hypot(above, training)
    return OverSeeds(mean, sd, (max(low, 0.0), min(high, 1.0)))
