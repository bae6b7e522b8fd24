"""Intervals of shares, one number for several seeds, and tests: what records and the report both say.

``paired_difference`` and ``mcnemar`` ask whether other images would tell the same models apart, and ``welch`` whether
other trainings would tell the same methods apart on the same images. ``holm`` corrects several tests that are shown
together.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

NORMAL_QUANTILE = 1.959963984540054
"""Of 97.5 %. Written out, for scipy takes long to import and an interval over images needs nothing else of it."""
FEWEST_TRAININGS = 3
"""Two leave Student's t one degree of freedom, an interval that says nothing: they are shown as two points."""
IMAGES, TRAININGS, BOTH = "these models' images", "trainings on these images", "images and trainings"
"""What an interval can be over."""


class OverSeeds(NamedTuple):
    """A share over seeds.

    Attributes:
        mean: the mean over the seeds, in [0, 1].
        sd: the standard deviation; None for one seed.
        interval: the 95 % interval; None where nothing is known of the spread.
        over: what the interval is over: ``IMAGES``, ``TRAININGS`` or ``BOTH``; None without an interval.
    """

    mean: float
    sd: float | None
    interval: tuple[float, float] | None
    over: str | None


def over_seeds(
    values: Sequence[float], intervals: Sequence[tuple[float, float]] = (), signed: bool = False
) -> OverSeeds:
    """The mean, standard deviation and 95 % interval of shares that differ in their seed.

    Args:
        values: a share for each seed, in [0, 1].
        intervals: the interval of each value, for the draw of its images; or none.
        signed: whether values are differences of shares, in [-1, 1].

    Returns:
        The numbers. The interval adds two spreads in squares: the mean half-width of ``intervals``, which comes
        from the draw of images, and Student's t over the seeds, which comes from the randomness of training. The
        second is missing below ``FEWEST_TRAININGS`` seeds.
    """
    if intervals and len(intervals) != len(values):
        raise ValueError(f"{len(values)} values need as many intervals or none, got {len(intervals)}.")
    n, mean = len(values), fmean(values)
    sd = stdev(values) if n > 1 else None
    several = sd is not None and n >= FEWEST_TRAININGS
    if not several and not intervals:
        return OverSeeds(mean, sd, None, None)
    training = _student(n - 1) * sd / math.sqrt(n) if sd is not None and several else 0.0
    below = above = 0.0
    if intervals:
        below = fmean(value - low for value, (low, _) in zip(values, intervals, strict=True))
        above = fmean(high - value for value, (_, high) in zip(values, intervals, strict=True))
    low, high = mean - math.hypot(below, training), mean + math.hypot(above, training)
    over = IMAGES
    if several:
        over = BOTH if intervals else TRAININGS
    return OverSeeds(mean, sd, (max(low, -1.0 if signed else 0.0), min(high, 1.0)), over)


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
    """One share minus another, and how far the data leave it open.

    Attributes:
        mean: the mean over the seeds, in [-1, 1].
        images_error: its standard error for the draw of images; 0 where images are not drawn anew.
        trainings_error: its standard error for the randomness of training; 0 where that is not known.
        freedom: the degrees of freedom of ``trainings_error``; None where it is 0 for want of trainings.
        points: the differences of the seeds, where these are several and too few for ``trainings_error``.
    """

    mean: float
    images_error: float
    trainings_error: float = 0.0
    freedom: float | None = None
    points: tuple[float, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        half = self.half_width(0.025)
        return self.mean - half, self.mean + half

    @property
    def over(self) -> str:
        """What the interval is over: ``IMAGES``, ``TRAININGS`` or ``BOTH``."""
        if self.freedom is None:
            return IMAGES
        return BOTH if self.images_error else TRAININGS

    @property
    def p(self) -> float:
        """The two-sided p-value of no difference: 0 is an end of the interval of level 1 - p."""
        return 2 * self._tail(abs(self.mean))

    @property
    def decided_margin(self) -> float:
        """The smallest margin within which two one-sided tests at 5 % find no difference, each margin by itself.

        It is the farther end of the 90 % interval from 0.
        """
        return abs(self.mean) + self.half_width(0.05)

    def p_equivalent(self, margin: float) -> float:
        """The p-value of two one-sided tests: that the difference is ``margin`` or more, either way.

        Source: Schuirmann 1987 (Journal of Pharmacokinetics and Biopharmaceutics 15), the larger of the two p-values.

        Raises:
            ValueError: the margin is not positive.
        """
        if not margin > 0:
            raise ValueError(f"a margin of equivalence is positive, got {margin}.")
        inside = margin - abs(self.mean)
        return self._tail(inside) if inside >= 0 else 1 - self._tail(-inside)

    def half_width(self, tail: float) -> float:
        """Half of the interval that leaves out ``tail`` on each side, from both spreads in squares."""
        images = NORMAL_QUANTILE if tail == 0.025 else -NormalDist().inv_cdf(tail)
        trainings = 0.0 if self.freedom is None else _student(self.freedom, tail)
        return math.hypot(images * self.images_error, trainings * self.trainings_error)

    def _tail(self, distance: float) -> float:
        """The tail whose half-width is ``distance``: 0.5 at the mean itself, towards 0 far from it."""
        if not self.trainings_error:
            if not self.images_error:
                return 0.0 if distance else 0.5
            return 0.5 * math.erfc(distance / self.images_error / math.sqrt(2))
        if not self.images_error and self.freedom is not None:
            from scipy.special import stdtr

            return float(stdtr(self.freedom, -distance / self.trainings_error))
        narrow, wide = 0.5, 1e-12
        for _ in range(60):  # half widths fall as tails grow; halving the logarithm keeps small tails exact
            middle = math.sqrt(narrow * wide)
            narrow, wide = (middle, wide) if self.half_width(middle) < distance else (narrow, middle)
        return math.sqrt(narrow * wide)


def paired_difference(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Difference:
    """The difference of two shares over seeds, image by image within each seed.

    Args:
        pairs: for each seed the outcomes of the first and of the second method, on the same images: right or wrong, or
            the share in [0, 1] of an image's draws that are right, of models whose answers are random. Draws that are
            independent from image to image need no spread of their own: that of the shares holds it.

    Returns:
        The difference, whose interval adds two spreads in squares as ``over_seeds`` does.
        The first comes from the draw of images. It is that of Agresti and Min 2005, who add half an image to each of
        the four outcomes, so that a few images on which nothing differs do not prove that nothing does. It is averaged
        over seeds, since all seeds see the same images.
        The second comes from the randomness of training: Student's t over the seeds' differences. Below
        ``FEWEST_TRAININGS`` seeds it is missing, and the interval says nothing of training.

    Raises:
        ValueError: there is no pair or no image, or outcomes differ in length.
    """
    differences, variances = [], []
    for first, second in pairs:
        if len(first) != len(second) or not first:
            raise ValueError(f"paired outcomes need the same images, got {len(first)} and {len(second)}.")
        moves = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
        differences.append(fmean(moves))
        variances.append(_image_variance(moves))
    mean, images_error = fmean(differences), math.sqrt(fmean(variances))
    if len(differences) < FEWEST_TRAININGS:
        return Difference(mean, images_error, points=tuple(differences) if len(differences) > 1 else ())
    trainings_error = stdev(differences) / math.sqrt(len(differences))
    return Difference(mean, images_error, trainings_error, len(differences) - 1)


def mean_difference(differences: Sequence[float]) -> Difference:
    """The mean over images of a number in [-1, 1] that each image has, such as the difference of two areas.

    Its interval is over the draw of images: that of ``paired_difference``, which numbers of -1, 0 and 1 give.

    Raises:
        ValueError: there is no image.
    """
    if not differences:
        raise ValueError("a mean over images needs at least one.")
    return Difference(fmean(differences), math.sqrt(_image_variance(differences)))


def _image_variance(differences: Sequence[float]) -> float:
    """The variance of a mean over images, with half an image added to each of four outcomes (Agresti and Min 2005)."""
    n, squares = len(differences) + 2, sum(number * number for number in differences) + 1
    return (squares / n - (sum(differences) / n) ** 2) / n


def mean_share(shares: Sequence[float], draws: int) -> tuple[float, tuple[float, float]]:
    """The mean over images of the share of draws that an image withstands, and its interval over images and draws.

    It is Wilson's interval for as many images as would spread as much: no fewer than there are, which is where all
    draws of an image agree, and no more than images times draws, which is where they tell nothing of each other.

    Args:
        shares: the share of each image, in [0, 1].
        draws: the number of draws behind each share; with one this is ``wilson``.

    Raises:
        ValueError: there is no image, or a share is outside [0, 1].
    """
    if not shares:
        raise ValueError("an interval needs at least one image.")
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"shares are in [0, 1], got {min(shares)} to {max(shares)}.")
    n, mean = len(shares), fmean(shares)
    spread = fmean((share - mean) ** 2 for share in shares)
    worth = float(draws)
    if spread > 0:
        worth = min(max(mean * (1 - mean) / spread, 1.0), worth)
    if mean in (0, 1):
        worth = 1.0
    return mean, _score_interval(mean, n * worth)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Welch's two-sample t-test, whose groups may differ in spread and in size (Welch 1947).

    Args:
        first: a value for each seed of a method, ``FEWEST_TRAININGS`` or more.
        second: those of another method; the seeds need not be the same.

    Returns:
        The same as ``scipy.stats.ttest_ind(first, second, equal_var=False)``, which warns where a group has no spread.
        Where neither group has any, p is 0, or 1 for equal means.

    Raises:
        ValueError: a method has fewer seeds.
    """
    if min(len(first), len(second)) < FEWEST_TRAININGS:
        raise ValueError(
            f"a test over seeds needs {FEWEST_TRAININGS} of each, got {len(first)} and {len(second)}: show the values."
        )
    mean = fmean(first) - fmean(second)
    parts = [stdev(values) ** 2 / len(values) for values in (first, second)]
    if not any(parts):
        return Difference(mean, 0.0, 0.0, len(first) + len(second) - 2)
    # Welch and Satterthwaite's degrees of freedom
    freedom = sum(parts) ** 2 / sum(p * p / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    return Difference(mean, 0.0, math.sqrt(sum(parts)), freedom)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, corrected for how many there are (Holm 1979).

    Returns:
        In the order given. Taking those below 0.05 errs on one true null hypothesis or more in at most 5 % of
        families, however the tests hang together.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min((len(p_values) - rank) * p_values[i], 1.0))
        corrected[i] = largest
    return corrected


def wilson(successes: int, n: int, error: float = 0.05) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927), of 95 % unless another ``error`` is given.

    Raises:
        ValueError: n is not positive.
    """
    if n < 1:
        raise ValueError("an interval needs at least one image.")
    z = NORMAL_QUANTILE if error == 0.05 else -NormalDist().inv_cdf(error / 2)
    return _score_interval(successes / n, n, z)


def _score_interval(share: float, n: float, z: float = NORMAL_QUANTILE) -> tuple[float, float]:
    """Wilson's interval of a share of n images, which need not be a whole number, at a quantile of the normal."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half  # rounding
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


def _student(freedom: float, tail: float = 0.025) -> float:
    """Student's t: the quantile above which ``tail`` lies."""
    from scipy.special import stdtrit

    return -float(stdtrit(freedom, tail))
