"""Estimates from a sample: exact bounds, coverage by enumeration, and rounds by simulation."""

from fractions import Fraction
from functools import cache
from math import comb

import numpy
import pytest

from counterpart.estimates import ERROR, bound_falls, estimate_accuracy, look_sizes
from counterpart.statistics import wilson


def share(survivors, falls, tried, fell):
    """The exact share of draws in which ``fell`` of ``tried`` fall."""
    return Fraction(comb(falls, fell) * comb(survivors - falls, tried - fell), comb(survivors, tried))


@pytest.mark.parametrize(("survivors", "tried"), [(1, 1), (7, 3), (12, 5), (30, 29), (40, 8)])
def test_bounds_are_those_of_exact_fractions(survivors, tried):
    half = Fraction(1, 40)
    for fell in range(tried + 1):
        possible = []
        for falls in range(fell, survivors - tried + fell + 1):
            fewer = sum(share(survivors, falls, tried, count) for count in range(fell + 1))
            more = sum(share(survivors, falls, tried, count) for count in range(fell, tried + 1))
            if fewer > half and more > half:
                possible.append(falls)
        assert bound_falls(survivors, tried, fell) == (possible[0], possible[-1])


@pytest.mark.parametrize(("survivors", "tried"), [(20, 5), (60, 20), (200, 50), (490, 100)])
@pytest.mark.parametrize("error", [0.05, 0.0125])
def test_the_interval_covers_whatever_the_truth(survivors, tried, error):
    """At a fixed sample: of all draws, enumerated by how many fall, at most ``error`` miss."""
    bounds = [bound_falls(survivors, tried, fell, error) for fell in range(tried + 1)]
    worst = 1.0
    for falls in range(survivors + 1):
        covering = [fell for fell, (low, high) in enumerate(bounds) if low <= falls <= high]
        worst = min(worst, float(sum(share(survivors, falls, tried, fell) for fell in covering)))
    assert 1 - error <= worst < 1 - error / 4  # it holds, and it is not merely wide


def test_widths_for_ten_thousand_images():
    """Of 10,000 images, 4,900 survivors: what the design was chosen by."""
    widths = {
        (tried, fell): round(100 * estimate_accuracy(10_000, 4_900, tried, fell).width, 2)
        for tried, fell in ((500, 0), (500, 1), (1000, 0))
    }
    assert widths == {(500, 0): 0.34, (500, 1): 0.51, (1000, 0): 0.16}


def test_an_estimate_and_its_two_intervals():
    estimate = estimate_accuracy(100, 60, 20, 2)
    fewest, most = bound_falls(60, 20, 2)
    assert estimate.value == pytest.approx(0.54)
    assert estimate.of_these_images == ((60 - most) / 100, (60 - fewest) / 100)
    fewest, most = bound_falls(60, 20, 2, ERROR / 2)
    assert estimate.of_population == (wilson(60 - most, 100, 0.025)[0], wilson(60 - fewest, 100, 0.025)[1])
    assert wilson(54, 100, 0.025)[0] == pytest.approx(0.42906, abs=1e-5)  # with z = 2.2414
    over_looks = estimate_accuracy(100, 60, 20, 2, looks=4)
    assert over_looks.width > estimate.width


def test_all_tried_is_no_estimate():
    assert estimate_accuracy(100, 60, 60, 7, looks=4) == (0.53, (0.53, 0.53), wilson(53, 100))
    assert estimate_accuracy(10, 0, 0, 0).value == 0


def test_impossible_counts():
    with pytest.raises(ValueError, match="of 5 survivors, 6 tried and 0 fallen"):
        bound_falls(5, 6, 0)
    with pytest.raises(ValueError, match="of 5 survivors, 2 tried and 3 fallen"):
        bound_falls(5, 2, 3)
    with pytest.raises(ValueError, match="at least one of the 5 survivors"):
        estimate_accuracy(10, 5, 0, 0)


def test_the_population_is_covered():
    """Images, then a sample of their survivors, 10,000 times: 40 % of the population is robust."""
    generator = numpy.random.default_rng(0)
    images, tried, draws = 200, 40, 10_000
    survivors = generator.binomial(images, 0.45, draws)
    falls = generator.binomial(survivors, 0.05 / 0.45)
    fell = generator.hypergeometric(falls, survivors - falls, tried)
    interval = cache(lambda m, f: estimate_accuracy(images, m, tried, f).of_population)
    ends = numpy.array([interval(m, f) for m, f in zip(survivors.tolist(), fell.tolist(), strict=True)])
    assert ((ends[:, 0] <= 0.4) & (ends[:, 1] >= 0.4)).mean() >= 0.95


def test_sizes_of_looks():
    sizes = look_sizes(10_000, 4_900, 0.01, 4)
    first = sizes[0]
    assert sizes == [first, 2 * first, 4 * first, 8 * first, 4_900]
    assert estimate_accuracy(10_000, 4_900, first, 0, 4).width <= 0.01
    assert estimate_accuracy(10_000, 4_900, first - 1, 0, 4).width > 0.01
    assert look_sizes(1_000, 490, 0.01, 4)[-1] == 490
    assert look_sizes(1_000, 3, 1e-4, 4) == [3]
    assert look_sizes(1_000, 0, 0.01, 4) == [0]


@pytest.mark.parametrize("falling", [0.0, 0.002, 0.01, 0.03, 0.2])
def test_rounds_cover_what_they_stop_at(falling):
    """``auto`` 10,000 times: it stops at the first look that is narrow enough, and its interval holds the truth."""
    images, survivors, width, looks, draws = 1_000, 600, 0.05, 4, 10_000
    falls = round(falling * survivors)
    generator = numpy.random.default_rng(1)
    sizes = look_sizes(images, survivors, width, looks)
    known = cache(lambda tried, fell: estimate_accuracy(images, survivors, tried, fell, looks))
    tried = fell = numpy.zeros(draws, dtype=int)
    running, covered, at = numpy.ones(draws, dtype=bool), numpy.zeros(draws, dtype=bool), []
    truth = (survivors - falls) / images
    for size in sizes:
        rest = falls - fell
        more = generator.hypergeometric(rest, survivors - tried - rest, size - tried)
        tried, fell = tried + (size - tried), fell + more
        for count in numpy.unique(fell[running]).tolist():
            estimate = known(size, count)
            here = running & (fell == count)
            if estimate.width <= width:
                low, high = estimate.of_these_images
                covered[here] = low - 1e-12 <= truth <= high + 1e-12
                running &= ~here
                at.append(size)
    assert not running.any()
    assert covered.mean() >= 0.95
    if falling == 0:
        assert set(at) == {sizes[0]}
    if falling == 0.2:
        assert sizes[0] not in at
