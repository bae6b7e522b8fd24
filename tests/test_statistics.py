"""One interval over seeds, for the group's records and the report."""

import math

import pytest
from scipy.stats import binomtest, ttest_ind, ttest_ind_from_stats
from scipy.stats import t as student_t

from counterpart.statistics import mcnemar, over_seeds, paired_difference, weighted_over_folds, welch


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


def test_folds_without_any_image_of_a_part_weigh_the_same():
    assert weighted_over_folds([(0.0, 0, None)]) == (0.0, None)
    assert weighted_over_folds([(0.2, 0, (0.1, 0.3)), (0.4, 0, (0.4, 0.4))])[0] == pytest.approx(0.3)
    assert weighted_over_folds([(0.2, 0, None), (0.4, 5, None)])[0] == pytest.approx(0.4)


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
    half = 1.959964 * math.sqrt((11 / 102 - (10 / 102) ** 2) / 102)  # ten images moved, all the same way
    assert found.interval == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))
    assert found.decided
    assert not paired_difference(
        [(one, other[::-1])]
    ).decided  # as far apart, but 40 moved one way and 30 the other


def test_a_hundred_images_without_a_difference_leave_room_for_one():
    found = paired_difference([([True] * 100, [True] * 100)])
    assert found.mean == 0
    assert found.interval[1] == pytest.approx(1.959964 / 102)


def test_a_difference_over_seeds_adds_students_t():
    pairs = [([True] * k + [False] * (100 - k), [True] * 50 + [False] * 50) for k in (60, 55, 50)]
    found = paired_difference(pairs)
    images = 1.959964 * math.sqrt(sum((k + 1) / 102 - (k / 102) ** 2 for k in (10, 5, 0)) / 3 / 102)
    half = math.hypot(images, student_t.ppf(0.975, 2) * 0.05 / math.sqrt(3))
    assert found.mean == pytest.approx(0.05)
    assert found.interval == (pytest.approx(0.05 - half), pytest.approx(0.05 + half))


def test_outcomes_of_other_images_have_no_difference():
    with pytest.raises(ValueError, match="the same images, got 2 and 1"):
        paired_difference([([True, False], [True])])


@pytest.mark.parametrize(
    ("one", "other"),
    [([0.5, 0.52, 0.49], [0.4, 0.47]), ([0.1, 0.9], [0.2, 0.21, 0.22, 0.2]), ([0.3, 0.4], [0.3, 0.4])],
)
def test_welchs_test_is_that_of_scipy(one, other):
    expected = ttest_ind(one, other, equal_var=False)
    found = welch(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert found.interval == (pytest.approx(low), pytest.approx(high))
    assert found.mean == pytest.approx(sum(one) / len(one) - sum(other) / len(other))


def test_welchs_test_by_hand():
    """Means 4 and 1, variances 4 and 1 over 2 seeds each: an error of sqrt(2.5), and 2.5**2 / (4 + 1/4) degrees."""
    half = 2**0.5
    found = welch([4 - half, 4 + half], [1 - half / 2, 1 + half / 2])
    freedom, error = 2.5**2 / 4.25, 2.5**0.5
    assert found.mean == pytest.approx(3)
    assert found.interval[1] - 3 == pytest.approx(student_t.ppf(0.975, freedom) * error)
    assert found.p == pytest.approx(2 * student_t.sf(3 / error, freedom))


def test_seeds_without_any_spread_are_told_apart_or_equal():
    assert welch([0.5, 0.5], [0.25, 0.25]) == (0.25, (0.25, 0.25), 0.0)
    assert welch([0.5, 0.5], [0.5, 0.5]).p == 1


def test_one_seed_is_no_sample():
    with pytest.raises(ValueError, match="needs two of each, got 1 and 3"):
        welch([0.5], [0.4, 0.5, 0.6])


def test_the_part_model_papers_p_values_take_its_intervals_for_the_spread_of_single_seeds():
    """Tables 2 to 4 over ten seeds, p said to be below 1e-6: so it is where +- is 1.96 deviations of a seed."""
    tables = [  # ResNet-50, Downsampled, Bounding-Box
        ((82.3, 1.6), (85.5, 0.8), (85.8, 0.7)),
        ((58.6, 4.2), (65.1, 0.8), (65.1, 2.1)),
        ((40.6, 1.8), (44.7, 2.6), (45.7, 2.7)),
    ]
    of_seeds, of_means = [], []
    for (base, base_half), *others in tables:
        for mean, half in others:
            for per_half, found in ((1 / 1.96, of_seeds), (10**0.5 / student_t.ppf(0.975, 9), of_means)):
                one, other = (mean, per_half * half, 10), (base, per_half * base_half, 10)
                found.append(ttest_ind_from_stats(*one, *other).pvalue)
    assert max(of_seeds) < 1e-6
    assert min(of_means) > 2e-4
    assert max(of_means) < 0.01
