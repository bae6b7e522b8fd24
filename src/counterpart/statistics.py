"""Intervals of shares, one number for several seeds, and tests: what records and the report both say.

``paired_difference`` and ``mcnemar`` ask whether other images would tell the same models apart, and ``welch`` whether
other trainings would tell the same methods apart on the same images.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

NORMAL_QUANTILE = 1.959963984540054
"""Of 97.5 %. Written out, for scipy takes long to import and an interval over images needs nothing else of it."""


class OverSeeds(NamedTuple):
    """A share over seeds.

    Attributes:
        mean: the mean over the seeds, in [0, 1].
        sd: the standard deviation; None for one seed.
        interval: the 95 % interval; None where nothing is known of the spread.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None


def over_seeds(values: Sequence[float], intervals: Sequence[tuple[float, float]] = ()) -> OverSeeds:
    """The mean, standard deviation and 95 % interval of shares that differ in their seed.

    Args:
        values: a share for each seed, in [0, 1].
        intervals: the interval of each value, for the draw of its images; or none.

    Returns:
        The three numbers. The interval adds two spreads in squares: the mean half-width of ``intervals``, which comes
        from the draw of images, and Student's t over the seeds, which comes from the randomness of training.
    """
    if intervals and len(intervals) != len(values):
        raise ValueError(f"{len(values)} values need as many intervals or none, got {len(intervals)}.")
    n, mean = len(values), fmean(values)
    sd = stdev(values) if n > 1 else None
    if sd is None and not intervals:
        return OverSeeds(mean, None, None)
    training = 0.0 if sd is None else _student(n - 1) * sd / math.sqrt(n)
    below = above = 0.0
    if intervals:
        below = fmean(value - low for value, (low, _) in zip(values, intervals, strict=True))
        above = fmean(high - value for value, (_, high) in zip(values, intervals, strict=True))
    low, high = mean - math.hypot(below, training), mean + math.hypot(above, training)
    return OverSeeds(mean, sd, (max(low, 0.0), min(high, 1.0)))


def over_folds(shares: Sequence[tuple[float, int]]) -> tuple[float, tuple[float, float]]:
    """The share of all images, and its Wilson interval, from the folds of a cross-validation.

    The folds judge different images, so that their counts add up.

    Args:
        shares: the share of each fold's images that count, in [0, 1], and the number of its images.
    """
    successes = sum(round(share * n) for share, n in shares)
    everything = sum(n for _, n in shares)
    return successes / everything, wilson(successes, everything)


def weighted_over_folds(
    shares: Sequence[tuple[float, int, tuple[float, float] | None]],
) -> tuple[float, tuple[float, float] | None]:
    """The mean over folds of shares that are no shares of images, such as ratios of pixels.

    Args:
        shares: the share of each fold, the number of images that it stands on, by which it is weighted, and its
            interval.

    Returns:
        The mean and its interval, which adds the weighted half-widths in squares, for folds judge different images.
        It is None where a fold has none. Where no share stands on any image, such as those of a part that is found and
        never there, all folds weigh the same.
    """
    if not any(n for _, n, _ in shares):
        shares = [(value, 1, interval) for value, _, interval in shares]
    everything = sum(n for _, n, _ in shares)
    mean = sum(value * n for value, n, _ in shares) / everything
    below = above = 0.0
    for value, n, interval in shares:
        if interval is None:
            return mean, None
        below = math.hypot(below, n / everything * (value - interval[0]))
        above = math.hypot(above, n / everything * (interval[1] - value))
    return mean, (max(mean - below, 0.0), min(mean + above, 1.0))


class Difference(NamedTuple):
    """One share minus another, measured on the same images.

    Attributes:
        mean: the mean over the seeds, in [-1, 1].
        interval: the 95 % interval.
    """

    mean: float
    interval: tuple[float, float]

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.interval[0] <= 0 <= self.interval[1]


def paired_difference(pairs: Sequence[tuple[Sequence[bool], Sequence[bool]]]) -> Difference:
    """The difference of two shares over seeds, image by image within each seed.

    Args:
        pairs: for each seed the outcomes of the first and of the second method, on the same images.

    Returns:
        The difference and its interval, which adds two spreads in squares as ``over_seeds`` does.
        The first comes from the draw of images. It is that of Agresti and Min 2005, who add half an image to each of
        the four outcomes, so that a few images on which nothing differs do not prove that nothing does. It is averaged
        over seeds, since all seeds see the same images.
        The second comes from the randomness of training: Student's t over the seeds' differences. With a single seed
        it is missing, and the interval says nothing of training.

    Raises:
        ValueError: there is no pair or no image, or outcomes differ in length.
    """
    differences, variances = [], []
    for first, second in pairs:
        if len(first) != len(second) or not first:
            raise ValueError(f"paired outcomes need the same images, got {len(first)} and {len(second)}.")
        moves = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
        differences.append(fmean(moves))
        n, moved = len(moves) + 2, sum(abs(move) for move in moves) + 1
        variances.append((moved / n - (sum(moves) / n) ** 2) / n)
    images = NORMAL_QUANTILE * math.sqrt(fmean(variances))
    n, centre = len(differences), fmean(differences)
    training = _student(n - 1) * stdev(differences) / math.sqrt(n) if n > 1 else 0.0
    half = math.hypot(images, training)
    return Difference(centre, (centre - half, centre + half))


class Welch(NamedTuple):
    """The mean of one method's seeds minus that of another's.

    Attributes:
        mean: the difference.
        interval: the 95 % interval.
        p: the two-sided p-value of no difference.
    """

    mean: float
    interval: tuple[float, float]
    p: float


def welch(first: Sequence[float], second: Sequence[float]) -> Welch:
    """Welch's two-sample t-test, whose groups may differ in spread and in size (Welch 1947).

    Args:
        first: a value for each seed of a method, 2 or more.
        second: those of another method; the seeds need not be the same.

    Returns:
        The same as ``scipy.stats.ttest_ind(first, second, equal_var=False)``, which warns where a group has no spread.
        Where neither group has any, p is 0, or 1 for equal means.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a test over seeds needs two of each, got {len(first)} and {len(second)}.")
    mean = fmean(first) - fmean(second)
    parts = [stdev(values) ** 2 / len(values) for values in (first, second)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Welch(mean, (mean, mean), float(mean == 0))
    from scipy.special import stdtr

    # Welch and Satterthwaite's degrees of freedom
    freedom = sum(parts) ** 2 / sum(p * p / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    half = _student(freedom) * error
    return Welch(mean, (mean - half, mean + half), 2 * float(stdtr(freedom, -abs(mean) / error)))


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927).

    Raises:
        ValueError: n is not positive.
    """
    if n < 1:
        raise ValueError("an interval needs at least one image.")
    z, share = NORMAL_QUANTILE, successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half  # rounding
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p-value of the exact McNemar test of two models on the same images (McNemar 1947).

    Args:
        only_first: images that the first model gets right and the second does not.
        only_second: the other way round.
    """
    from scipy.special import bdtr

    fewer, n = min(only_first, only_second), only_first + only_second
    return min(2 * float(bdtr(fewer, n, 0.5)), 1.0) if n else 1.0


def _student(freedom: float) -> float:
    """Student's t: the quantile of 97.5 %."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
