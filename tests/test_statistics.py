"""One interval over seeds, for the group's records and the report."""

import math

import pytest
from scipy.stats import binomtest
from scipy.stats import t as student_t

from counterpart.statistics import mcnemar, over_seeds, paired_difference


def test_without_own_intervals_it_is_students_t():
    mean, sd, (low, high) = over_seeds([0.4, 0.5, 0.6])
    assert (mean, sd) == (pytest.approx(0.5), pytest.approx(0.1))
    half = student_t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_own_intervals_are_added_in_squares_on_each_side():
    _, _, (low, high) = over_seeds([0.4, 0.5, 0.6], [(0.37, 0.41), (0.46, 0.52), (0.55, 0.63)])
    half = student_t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert 0.5 - low == pytest.approx(math.hypot(0.04, half))
    assert high - 0.5 == pytest.approx(math.hypot(0.02, half))


def test_one_seed_has_its_own_interval_or_none():
    assert over_seeds([0.5]) == (0.5, None, None)
    mean, sd, interval = over_seeds([0.5], [(0.4, 0.7)])
    assert (mean, sd, interval) == (0.5, None, pytest.approx((0.4, 0.7)))


def test_a_share_stays_within_its_range():
    assert over_seeds([0.0, 1.0]).interval == (0.0, 1.0)


def test_intervals_for_some_of_the_seeds_are_refused():
    with pytest.raises(ValueError, match="2 values need as many intervals or none, got 1"):
        over_seeds([0.5, 0.6], [(0.4, 0.7)])


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (1, 9), (9, 1), (0, 6), (30, 52)])
def test_mcnemar_is_the_exact_binomial_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_a_difference_of_one_seed_has_the_spread_of_its_images():
    one, other = [True] * 60 + [False] * 40, [True] * 50 + [False] * 50
    found = paired_difference([(one, other)])
    assert found.mean == pytest.approx(0.1)
    half = 1.959964 * math.sqrt((0.1 - 0.01) / 100)  # ten images moved, all the same way
    assert found.interval == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))
    assert found.decided
    assert not paired_difference(
        [(one, other[::-1])]
    ).decided  # as far apart, but 40 moved one way and 30 the other


def test_a_difference_over_seeds_adds_students_t():
    pairs = [([True] * k + [False] * (100 - k), [True] * 50 + [False] * 50) for k in (60, 55, 50)]
    found = paired_difference(pairs)
    images = 1.959964 * math.sqrt((0.09 + (0.05 - 0.0025) + 0) / 3 / 100)
    half = math.hypot(images, student_t.ppf(0.975, 2) * 0.05 / math.sqrt(3))
    assert found.mean == pytest.approx(0.05)
    assert found.interval == (pytest.approx(0.05 - half), pytest.approx(0.05 + half))


def test_outcomes_of_other_images_have_no_difference():
    with pytest.raises(ValueError, match="the same images, got 2 and 1"):
        paired_difference([([True, False], [True])])
