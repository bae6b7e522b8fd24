"""What a sample says of a test set and of its population: estimates of a robust accuracy, with exact intervals.

Of n images, m survive some attacks. Further attacks are tried on k of these survivors, drawn at random without
replacement, and f of the k fall. How many of all m would fall is then hypergeometric.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy
from numpy.typing import NDArray

from .statistics import wilson

ERROR = 0.05
"""The share of intervals that may miss."""


class Estimate(NamedTuple):
    """A robust accuracy that was estimated from a sample of survivors.

    Attributes:
        value: the estimate, in [0, 1].
        of_these_images: the 95 % interval of what trying all survivors would give, on these very images and under
            these attacks.
        of_population: the 95 % interval over the draw of images, which the sample widens.
    """

    value: float
    of_these_images: tuple[float, float]
    of_population: tuple[float, float]

    @property
    def width(self) -> float:
        """The width of the interval of these images."""
        low, high = self.of_these_images
        return high - low


def bound_falls(survivors: int, tried: int, fell: int, error: float = ERROR) -> tuple[int, int]:
    """The fewest and the most of all survivors that may fall, where ``fell`` of ``tried`` did.

    The interval inverts both tails of the hypergeometric distribution, each at half of the error, as that of Clopper
    and Pearson 1934 does of the binomial: it misses in at most ``error`` of all draws, whatever the truth.

    Args:
        survivors: m, how many survivors there are.
        tried: k, how many of them were drawn, at random and without replacement.
        fell: f, how many of these fell.
        error: the share of draws whose interval may miss, in (0, 1).

    Raises:
        ValueError: more fell than were tried, or more were tried than there are.
    """
    if not 0 <= fell <= tried <= survivors:
        raise ValueError(
            f"of {survivors} survivors, {tried} tried and {fell} fallen: each has to be at most the last."
        )
    fewest, most = fell, survivors - tried + fell

    def few_enough(falls: int) -> bool:
        return _share_of_draws(survivors, falls, tried, 0, fell) > error / 2

    def many_enough(falls: int) -> bool:
        return _share_of_draws(survivors, falls, tried, fell, tried) > error / 2

    low, high = fewest, most
    while low < high:  # the first that is many enough
        middle = (low + high) // 2
        low, high = (low, middle) if many_enough(middle) else (middle + 1, high)
    lowest, low, high = low, fewest, most
    while low < high:  # the last that is few enough
        middle = (low + high + 1) // 2
        low, high = (middle, high) if few_enough(middle) else (low, middle - 1)
    return lowest, low


def estimate_accuracy(images: int, survivors: int, tried: int, fell: int, looks: int = 1) -> Estimate:
    """The accuracy on all images, from a sample of the survivors.

    Of the population, half of the error goes to the sample and half to Wilson's interval. Where all survivors were
    tried nothing is estimated: the accuracy is exact, and its interval is Wilson's with the whole error.

    Args:
        images: n, how many images there are.
        survivors: m, how many of them stand before the sample.
        tried: k, how many survivors were drawn.
        fell: f, how many of these fell.
        looks: the number of times that such a sample might have been looked at to decide whether to go on, over which
            the error of the sample is split.

    Raises:
        ValueError: there are no images, or a count exceeds the one before it.
    """
    if tried == survivors:
        value = (survivors - fell) / images
        return Estimate(value, (value, value), wilson(survivors - fell, images))
    if not tried:
        raise ValueError(f"an estimate needs at least one of the {survivors} survivors.")
    fewest, most = bound_falls(survivors, tried, fell, ERROR / looks)
    of_these_images = (survivors - most) / images, (survivors - fewest) / images
    fewest, most = bound_falls(survivors, tried, fell, ERROR / 2 / looks)
    low, _ = wilson(survivors - most, images, ERROR / 2)
    _, high = wilson(survivors - fewest, images, ERROR / 2)
    return Estimate(survivors / images * (1 - fell / tried), of_these_images, (low, high))


def look_sizes(images: int, survivors: int, width: float, looks: int) -> list[int]:
    """How many survivors are tried at each look, until the interval of these images is narrow enough.

    The first look is at the smallest sample that may do: that whose interval is within ``width`` if none falls. Each
    further look doubles it. Behind the last, all survivors are tried. The sizes depend on nothing that the sample
    shows, so that splitting the error over the looks is all that looking costs.

    Args:
        images: n, how many images there are.
        survivors: m, how many of them stand before the sample.
        width: the width of the interval that is aimed at, in (0, 1).
        looks: at most so many looks at samples of less than all survivors.
    """
    low, high = min(1, survivors), survivors
    while low < high:
        middle = (low + high) // 2
        narrow = estimate_accuracy(images, survivors, middle, 0, looks).width <= width
        low, high = (low, middle) if narrow else (middle + 1, high)
    sizes = [low * 2**look for look in range(looks)]
    return [size for size in sizes if size < survivors] + [survivors]


def _share_of_draws(survivors: int, falls: int, tried: int, fewest: int, most: int) -> float:
    """The share of draws in which from ``fewest`` to ``most`` fall, where ``falls`` of all survivors would."""
    first, last = max(fewest, tried - (survivors - falls)), min(most, falls, tried)
    if first > last:
        return 0.0
    logs, drawn = _log_factorials(survivors), numpy.arange(first, last + 1)
    standing = survivors - falls
    logarithms = (
        logs[falls] - logs[drawn] - logs[falls - drawn]
        + logs[standing] - logs[tried - drawn] - logs[standing - tried + drawn]
        - (logs[survivors] - logs[tried] - logs[survivors - tried])
    )  # fmt: skip
    return min(math.fsum(numpy.exp(logarithms)), 1.0)


@lru_cache(maxsize=4)
def _log_factorials(most: int) -> NDArray[numpy.float64]:
    """The logarithms of 0!, 1!, ... up to that of ``most``."""
    return numpy.concatenate([[0.0], numpy.cumsum(numpy.log(numpy.arange(1, most + 1)))])
