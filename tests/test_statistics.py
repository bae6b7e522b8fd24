"""One interval over seeds, for the group's records and the report."""

import math

import numpy
import pytest
from scipy.stats import binomtest, norm, ttest_ind, ttest_ind_from_stats
from scipy.stats import t as student_t

from counterpart.statistics import (
    BOTH,
    IMAGES,
    TRAININGS,
    Difference,
    holm,
    mcnemar,
    mean_difference,
    mean_share,
    over_folds,
    over_seeds,
    paired_difference,
    weighted_over_folds,
    welch,
    wilson,
)


def test_without_own_intervals_it_is_students_t():
    mean, sd, (low, high), over = over_seeds([0.4, 0.5, 0.6])
    assert (mean, sd, over) == (pytest.approx(0.5), pytest.approx(0.1), TRAININGS)
    half = student_t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_own_intervals_are_added_in_squares_on_each_side():
    _, _, (low, high), over = over_seeds([0.4, 0.5, 0.6], [(0.37, 0.41), (0.46, 0.52), (0.55, 0.63)])
    assert over == BOTH
    half = student_t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert 0.5 - low == pytest.approx(math.hypot(0.04, half))
    assert high - 0.5 == pytest.approx(math.hypot(0.02, half))


def test_one_seed_has_its_own_interval_or_none():
    assert over_seeds([0.5]) == (0.5, None, None, None)
    mean, sd, interval, over = over_seeds([0.5], [(0.4, 0.7)])
    assert (mean, sd, interval, over) == (0.5, None, pytest.approx((0.4, 0.7)), IMAGES)


def test_two_seeds_have_no_interval_of_one_degree_of_freedom():
    assert over_seeds([0.4, 0.6]) == (0.5, pytest.approx(0.02**0.5), None, None)
    _, _, interval, over = over_seeds([0.4, 0.6], [(0.37, 0.41), (0.55, 0.63)])
    assert (interval, over) == (pytest.approx((0.46, 0.52)), IMAGES)
    right = [True] * 60 + [False] * 40
    pairs = [(right, right), (right[::-1], right)]
    two, again = paired_difference(pairs), paired_difference([*pairs, pairs[1]])
    assert (two.freedom, two.over, again.freedom, again.over) == (None, IMAGES, 2, BOTH)
    assert (two.points, again.points) == ((0.0, 0.0), ())


def test_a_share_stays_within_its_range():
    assert over_seeds([0.0, 0.0, 1.0, 1.0]).interval == (0.0, 1.0)


def test_folds_without_any_image_of_a_part_weigh_the_same():
    assert weighted_over_folds([(0.0, 0, None)]) == (0.0, None)
    assert weighted_over_folds([(0.2, 0, (0.1, 0.3)), (0.4, 0, (0.4, 0.4))])[0] == pytest.approx(0.3)
    assert weighted_over_folds([(0.2, 0, None), (0.4, 5, None)])[0] == pytest.approx(0.4)


def test_intervals_for_some_of_the_seeds_are_refused():
    with pytest.raises(ValueError, match="2 values need as many intervals or none, got 1"):
        over_seeds([0.5, 0.6], [(0.4, 0.7)])


def test_differences_of_shares_may_be_negative():
    values, intervals = [-0.5, -0.25], [(-0.75, -0.25), (-0.5, 0.0)]
    assert over_seeds(values, intervals, signed=True).interval == pytest.approx((-0.625, -0.125))
    assert over_seeds([-0.9, -0.9], [(-1.2, -0.6)] * 2, signed=True).interval == pytest.approx((-1.0, -0.6))
    assert over_seeds([0.1, 0.1], [(-0.2, 0.4)] * 2).interval == pytest.approx((0.0, 0.4))


def test_counts_of_folds_add_up():
    assert over_folds([(0.5, 10), (0.25, 20)]) == (10 / 30, wilson(10, 30))


def test_intervals_of_folds_are_weighted_and_added_in_squares():
    folds = [(0.2, 1, (0.1, 0.4)), (0.6, 3, (0.56, 0.64))]
    mean, (low, high) = weighted_over_folds(folds)
    assert mean == pytest.approx(0.5)
    assert mean - low == pytest.approx(math.hypot(0.1 / 4, 0.04 * 3 / 4))
    assert high - mean == pytest.approx(math.hypot(0.2 / 4, 0.04 * 3 / 4))
    # Folds that stand on no image weigh the same, whatever their number.
    mean, (low, high) = weighted_over_folds([(0.2, 0, (0.1, 0.4)), (0.4, 0, (0.4, 0.4))])
    assert (mean, low, high) == pytest.approx((0.3, 0.25, 0.4))
    assert weighted_over_folds([(0.1, 2, (-0.3, 1.9))])[1] == (0.0, 1.0)


@pytest.mark.parametrize("level", [0.95, 0.8, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 7), (7, 7), (3, 10), (1, 1), (412, 1000)])
def test_wilsons_interval_is_that_of_scipy(successes, n, level):
    low, high = wilson(successes, n) if level == 0.95 else wilson(successes, n, error=1 - level)
    expected = binomtest(successes, n).proportion_ci(level, "wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (low == 0) == (successes == 0)
    assert (high == 1) == (successes == n)


def test_an_interval_needs_an_image():
    with pytest.raises(ValueError, match="at least one image"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="at least one"):
        mean_difference([])


def test_the_mean_of_numbers_of_images_has_the_spread_of_pairs():
    moves = [1.0] * 3 + [-1.0] * 2 + [0.0] * 5
    pairs = [([move > 0 for move in moves], [move < 0 for move in moves])]
    assert mean_difference(moves) == paired_difference(pairs)
    assert mean_difference([0.5, -0.25]).images_error == pytest.approx(
        math.sqrt(((0.25 + 0.0625 + 1) / 4 - (0.25 / 4) ** 2) / 4)
    )


def test_a_difference_outside_the_margin_is_hardly_within_it():
    assert Difference(0.05, 0.01).p_equivalent(0.03) == pytest.approx(norm.sf(-2))
    assert Difference(-0.05, 0.0, 0.01, 4).p_equivalent(0.03) == pytest.approx(student_t.sf(-2, 4))
    assert Difference(0.03, 0.01).p_equivalent(0.03) == pytest.approx(0.5)


def test_tiny_tails_are_exact():
    assert Difference(1.0, 0.0, 1e-6, 4).p == pytest.approx(2 * student_t.sf(1e6, 4), rel=1e-6, abs=0)
    assert Difference(0.1, 0.01).p == pytest.approx(2 * norm.sf(10), rel=1e-6, abs=0)
    assert Difference(100.0, 0.01, 0.01, 100).p == pytest.approx(
        2e-12, rel=1e-4, abs=0
    )  # no smaller, for both
    assert Difference(0.0, 0.01, 0.01, 4).p == pytest.approx(1.0)
    both = Difference(0.1, 0.01, 0.01, 2)
    assert both.half_width(both.p / 2) == pytest.approx(0.1, rel=1e-6)
    assert (both.over, Difference(0.1, 0.0, 0.01, 2).over, Difference(0.1, 0.01).over) == (
        BOTH,
        TRAININGS,
        IMAGES,
    )


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
    assert found.p == pytest.approx(2 * norm.sf(0.1 / (half / 1.959964)), rel=1e-5)
    assert (
        paired_difference([(one, other[::-1])]).p > 0.05
    )  # as far apart, but 40 moved one way and 30 the other


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
    assert found.half_width(found.p / 2) == pytest.approx(0.05)  # 0 is an end of the interval of level 1 - p


def test_outcomes_of_other_images_have_no_difference():
    with pytest.raises(ValueError, match="the same images, got 2 and 1"):
        paired_difference([([True, False], [True])])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0.5, 0.52, 0.49], [0.4, 0.47, 0.46]),
        ([0.1, 0.9, 0.3], [0.2, 0.21, 0.22, 0.2]),
        ([0.3, 0.4, 0.5], [0.3, 0.4, 0.5]),
    ],
)
def test_welchs_test_is_that_of_scipy(one, other):
    expected = ttest_ind(one, other, equal_var=False)
    found = welch(one, other)
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert found.interval == (pytest.approx(low), pytest.approx(high))
    assert found.mean == pytest.approx(sum(one) / len(one) - sum(other) / len(other))


def test_welchs_test_by_hand():
    """Means 4 and 1, variances 6 and 1.5 over 3 seeds: an error of sqrt(2.5), 2.5**2 / (4 / 2 + 0.25 / 2) degrees."""
    wide, narrow = 6**0.5, 1.5**0.5
    difference = welch([4 - wide, 4, 4 + wide], [1 - narrow, 1, 1 + narrow])
    freedom, error = 2.5**2 / 2.125, 2.5**0.5
    assert difference.mean == pytest.approx(3)
    assert difference.interval[1] - 3 == pytest.approx(student_t.ppf(0.975, freedom) * error)
    assert difference.p == pytest.approx(2 * student_t.sf(3 / error, freedom))
    assert difference.over == TRAININGS


def test_seeds_without_any_spread_are_told_apart_or_equal():
    apart = welch([0.5] * 3, [0.25] * 3)
    assert (apart.mean, apart.interval, apart.p) == (0.25, (0.25, 0.25), 0.0)
    assert apart.freedom == 4
    assert welch([0.5] * 3, [0.5] * 3).p == 1
    alone = welch([0.25] * 3, [0.3, 0.4, 0.5])  # the spread of one is all there is
    assert (alone.freedom, alone.trainings_error) == pytest.approx((2, 0.1 / math.sqrt(3)))


def test_two_seeds_are_no_sample():
    with pytest.raises(ValueError, match="needs 3 of each, got 2 and 3: show the values"):
        welch([0.5, 0.6], [0.4, 0.5, 0.6])


def test_holms_correction_by_hand():
    """Five tests: 5 x 0.005, 4 x 0.01, 3 x 0.03, then 2 x 0.04 = 0.08, which may not fall below 0.09."""
    assert holm([0.03, 0.005, 0.04, 0.6, 0.01]) == pytest.approx([0.09, 0.025, 0.09, 0.6, 0.04])
    assert holm([0.5, 0.7]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_of_54_tests_whose_smallest_p_is_0_0046_none_survives():
    assert min(holm([0.0046] + [0.04] * 9 + [0.5] * 44)) == pytest.approx(0.2484)


def test_equivalence_is_two_one_sided_t_tests():
    """Three seeds each on either side of 0.5 and 0.51: scipy's one-sided tests of the shifted groups."""
    first, second, margin = [0.50, 0.51, 0.52, 0.515], [0.49, 0.505, 0.51], 0.03
    up = ttest_ind([v + margin for v in first], second, equal_var=False, alternative="greater").pvalue
    down = ttest_ind([v - margin for v in first], second, equal_var=False, alternative="less").pvalue
    difference = welch(first, second)
    assert difference.p_equivalent(margin) == pytest.approx(max(up, down))
    assert difference.p_equivalent(difference.decided_margin) == pytest.approx(0.05)
    assert difference.p_equivalent(0.001) > 0.5  # the mean itself lies outside
    with pytest.raises(ValueError, match=r"positive, got 0"):
        difference.p_equivalent(0)


def test_equivalence_over_images_by_hand():
    """0.01 with an error of 0.01: a margin of 0.03 is two errors away, and 0.01 + 1.645 errors are decided."""
    difference = Difference(-0.01, 0.01)
    assert difference.p_equivalent(0.03) == pytest.approx(0.02275, abs=1e-5)
    assert difference.decided_margin == pytest.approx(0.0264485, abs=1e-6)
    both = Difference(0.01, 0.01, 0.002, 2)
    assert both.p_equivalent(both.decided_margin) == pytest.approx(0.05)


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


def test_the_interval_of_shares_lies_between_wilsons_for_images_and_for_draws():
    assert mean_share([1.0] * 30 + [0.0] * 70, 5) == (0.3, wilson(30, 100))  # all draws of an image agree
    assert mean_share([0.5] * 100, 2) == (0.5, wilson(100, 200))  # draws tell nothing of each other
    for share in (0.0, 1.0):  # here draws could tell nothing either way
        assert mean_share([share] * 40, 5) == (share, wilson(int(40 * share), 40))
    assert mean_share([0.0] * 100, 20)[1] == wilson(0, 100)
    narrow, wide = mean_share([0.4, 0.6] * 50, 10)[1], mean_share([0.0, 1.0] * 50, 10)[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


@pytest.mark.parametrize("shares", [[], [0.5, 1.5], [-0.1]])
def test_the_interval_of_shares_refuses_what_is_none(shares):
    with pytest.raises(ValueError, match=r"at least one image|shares are in"):
        mean_share(shares, 2)


@pytest.mark.parametrize(
    ("a", "b", "draws", "n"), [(2, 1, 5, 60), (0.2, 0.3, 10, 100), (9, 1, 1, 80), (1, 6, 20, 200)]
)
def test_the_interval_of_shares_covers_images_and_draws(a, b, draws, n):
    """Images have success probabilities of a beta distribution, and each is drawn a few times."""
    generator, covered, times = numpy.random.default_rng(0), 0, 600
    for _ in range(times):
        shares = generator.binomial(draws, generator.beta(a, b, n)) / draws
        _, (low, high) = mean_share(shares.tolist(), draws)
        covered += low <= a / (a + b) <= high
    assert 0.93 < covered / times < 0.99


def test_paired_shares_that_are_equal_but_for_draws_are_rarely_told_apart():
    generator, apart, times, n, draws = numpy.random.default_rng(1), 0, 400, 80, 5
    for _ in range(times):
        chances = generator.beta(2, 1, n)
        first, second = ((generator.binomial(draws, chances) / draws).tolist() for _ in range(2))
        apart += paired_difference([(first, second)]).p < 0.05
    assert apart / times < 0.07
    better = [min(share + 0.2, 1.0) for share in second]
    assert paired_difference([(better, second)]).p < 0.001
    assert paired_difference([(better, second)]).mean == pytest.approx(sum(better) / n - sum(second) / n)
