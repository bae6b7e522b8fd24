"""The numbers of a where-profile: rows, areas between curves, and their intervals."""

import pytest

from counterpart.evaluation.where_profile import RegionOutcome, areas_between, region_rows, trapezoids
from counterpart.statistics import mean_difference, mean_share, paired_difference, wilson

CLASSES = ["a", "a", "b", "b"]
RIGHT = [True, True, True, False]


def outcome(name, kind, share, stands, control="", draw=0):
    right = RIGHT[: len(stands)]
    bits = [bool(bit) for bit in stands]
    return RegionOutcome(name, kind, share, control, draw, range(len(stands)), bits, right, share)


OUTCOMES = [
    outcome("everything", "everything", 1.0, [0, 1, 0, 0]),
    outcome("top 20%", "top", 0.2, [0, 1, 1, 0]),
    outcome("top 20%", "top", 0.2, [1, 1, 1, 0], "other", 0),
    outcome("top 20%", "top", 0.2, [0, 1, 1, 0], "other", 1),
    outcome("top 60%", "top", 0.6, [0, 1, 0, 0]),
    outcome("top 60%", "top", 0.6, [0, 1, 1, 0], "other", 0),
    outcome("top 60%", "top", 0.6, [0, 1, 1, 0], "other", 1),
    outcome("bottom 20%", "bottom", 0.2, [1, 1, 1, 0]),
    outcome("bottom 60%", "bottom", 0.6, [1, 1, 0, 0]),
]


def test_trapezoids():
    assert trapezoids([0, 0.25, 1], [[1.0, 0], [1.0, 0.5], [0.0, 1]]) == pytest.approx(
        [0.25 + 0.375, 0.0625 + 0.5625]
    )


def test_areas_are_means_of_images():
    areas = {area.name: area for area in areas_between(OUTCOMES, CLASSES)}
    assert list(areas) == ["bottom - top", "other - top"]
    # a point at 0.2 weighs (0.6 - 0) / 2, one at 0.6 weighs (1 - 0.2) / 2
    of_images = [0.3 + 0.4, 0, 0, 0]
    assert areas["bottom - top"].difference.mean == pytest.approx(0.7 / 4)
    assert areas["bottom - top"].difference.interval == pytest.approx(mean_difference(of_images).interval)
    assert areas["bottom - top"].per_class == {"a": (pytest.approx(0.35), 2), "b": (0.0, 2)}
    assert areas["bottom - top"].shares == [0, 0.2, 0.6, 1]
    # image 0: half of its draws at 0.2; image 2: both at 0.6
    assert areas["other - top"].difference.mean == pytest.approx((0.5 * 0.3 + 0.4) / 4)


def test_rows_hold_random_regions_and_the_same_images():
    rows = {row.region: row for row in region_rows(OUTCOMES, CLASSES)}
    row = rows["top 20%"]
    assert (row.value, row.clean, row.everything, row.n) == (0.5, 0.75, 0.25, 4)
    assert (row.low, row.high) == wilson(2, 4)
    assert row.per_class == {"a": (1, 2), "b": (1, 2)}
    assert row.random["other"].value == pytest.approx(2.5 / 4)
    assert row.random["other"].draws == 2
    assert row.random["other"].difference.mean == pytest.approx(-0.125)
    assert rows["bottom 20%"].random == {}


def test_a_part_is_compared_on_its_images():
    part = RegionOutcome("head", "parts", None, "", 0, [1, 2], [True, True], [True, True], 0.1)
    row = region_rows([OUTCOMES[0], part], CLASSES)[1]
    assert (row.value, row.everything, row.n) == (1.0, 0.5, 2)
    assert row.per_class == {"a": (1, 1), "b": (1, 1)}
    assert areas_between([OUTCOMES[0], part], CLASSES) == []


def test_the_interval_of_a_mean_is_that_of_pairs():
    first, second = [True, True, False, True, False], [False, True, True, True, False]
    moves = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    assert mean_difference(moves).interval == paired_difference([(first, second)]).interval
    assert mean_difference([0.0] * 20).interval[1] > 0  # a few images on which nothing differs prove nothing
    with pytest.raises(ValueError, match="at least one"):
        mean_difference([])


def test_the_interval_over_draws_is_between_that_of_images_and_that_of_all_draws():
    shares = [1.0] * 6 + [0.0] * 4
    assert mean_share(shares, 3) == (0.6, wilson(6, 10))  # draws agree
    mean, narrow = mean_share([2 / 3, 1 / 3] * 5, 3)
    assert (mean, narrow) == (
        pytest.approx(0.5),
        pytest.approx(wilson(15, 30)),
    )  # they tell nothing of each other
    assert mean_share([1.0, 1.0], 3) == (1.0, wilson(2, 2))
    low, high = mean_share([1.0, 0.5, 0.0, 0.0], 2)[1]
    assert wilson(3, 8)[0] > low > wilson(3, 8)[0] - 0.2
    assert high > wilson(3, 8)[1]
