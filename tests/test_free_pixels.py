"""The budgets of a few pixels, or of a window, that may take any value: by hand and by trying every choice."""

from itertools import combinations

import pytest
import torch

from counterpart.budget import L0, Linf, Patch
from counterpart.seeding import Keys

CLEAN = torch.rand(3, 2, 4, 5, generator=torch.Generator().manual_seed(1))
FAR = CLEAN + torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(2))
KEYS = Keys(0, "test", torch.arange(3))
PLACES = [(row, column) for row in range(4) for column in range(5)]


def window_of(corner, side):
    """The places of a window, by its upper left corner."""
    return [(corner[0] + down, corner[1] + across) for down in range(side) for across in range(side)]


def choices(budget):
    """Every set of pixels that may move together."""
    if isinstance(budget, L0):
        return list(combinations(PLACES, budget.pixels))
    side = budget.pixels
    return [window_of((row, column), side) for row in range(5 - side) for column in range(6 - side)]


@pytest.mark.parametrize("budget", [L0(1), L0(2), Patch(1), Patch(2), Patch(3)], ids=repr)
def test_the_projection_is_the_nearest_of_all_choices(budget):
    projected = budget.project(FAR, CLEAN)
    assert budget.contains(projected, CLEAN).all()
    for row in range(3):
        nearest = torch.inf
        for places in choices(budget):
            candidate = CLEAN[row].clone()
            for y, x in places:
                candidate[:, y, x] = FAR[row, :, y, x].clamp(0, 1)
            nearest = min(nearest, float(((candidate - FAR[row]) ** 2).sum()))
        assert float(((projected[row] - FAR[row]) ** 2).sum()) == pytest.approx(nearest, rel=1e-5)


@pytest.mark.parametrize("budget", [L0(2), Patch(2)], ids=repr)
def test_what_is_allowed_stays_and_what_is_not_is_refused(budget):
    projected = budget.project(FAR, CLEAN)
    assert torch.equal(budget.project(projected, CLEAN), projected)
    assert torch.equal(budget.project(CLEAN, CLEAN), CLEAN)
    assert budget.distance(CLEAN, CLEAN).tolist() == [0, 0, 0]
    outside = CLEAN.clone()
    outside[0, 0, 1, 1] = 1.5  # one pixel alone, but out of range
    outside[1, 1, 2, 3] = -0.5
    assert budget.contains(outside, CLEAN).tolist() == [False, False, True]
    assert not budget.contains(FAR.clamp(0, 1), CLEAN).any()


def test_l0_counts_pixels_and_not_channels():
    images = CLEAN.clone()
    images[0, :, 0, 0] += 0.1
    images[1, 0, 1, 1] += 0.1
    images[1, 1, 3, 4] += 0.1
    assert L0(4).distance(images, CLEAN).tolist() == [0.25, 0.5, 0]


def test_a_patch_is_as_large_as_the_farthest_pixels_lie_apart():
    images = CLEAN.clone()
    images[0, 0, 1, 1] += 0.1
    images[0, 1, 1, 3] += 0.1  # a row of three
    images[1, 0, 0, 2] += 0.1
    images[1, 0, 3, 2] += 0.1  # a column of four
    assert Patch(2).distance(images, CLEAN).tolist() == [1.5, 2, 0]
    # The uppermost and leftmost window of side 2 that holds the last changed pixel.
    assert Patch(2).corners(images, CLEAN).tolist() == [[0, 2], [2, 1], [0, 0]]
    assert Patch(3).corners(images, CLEAN).tolist() == [[0, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_window_has_its_corner_and_its_side(side):
    corners = torch.tensor([[0, 0], [1, 2], [4 - side, 5 - side]])
    inside = Patch(side).window(corners, CLEAN)
    assert inside.shape == (3, 1, 4, 5)
    for row, corner in enumerate(corners.tolist()):
        assert [tuple(place) for place in inside[row, 0].nonzero().tolist()] == sorted(
            window_of(corner, side)
        )
    budget = Patch(side).in_window(corners, CLEAN)
    assert isinstance(budget, Linf)
    assert torch.equal(budget.radius(CLEAN), inside.float())


def test_a_window_is_no_larger_than_the_image():
    inside = Patch(9).window(torch.zeros(3, 2, dtype=torch.long), CLEAN)
    assert inside.all()
    assert Patch(9).sums(CLEAN[:, 0]).shape == (3, 1, 1)
    assert L0(99).choose(CLEAN[:, 0]).all()


def test_sums_are_what_each_window_is_worth():
    worth = CLEAN[:, 0]
    sums = Patch(2).sums(worth)
    assert sums.shape == (3, 3, 4)
    for row in range(3):
        for column in range(4):
            expected = worth[:, row : row + 2, column : column + 2].sum(dim=(1, 2))
            torch.testing.assert_close(sums[:, row, column], expected)


@pytest.mark.parametrize("budget", [L0(3), Patch(2)], ids=repr)
def test_steps_rise_and_advances_are_allowed(budget):
    gradient = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(4))
    gradient[:, 0, 0] = 0.0  # what has no gradient stays
    stepped = budget.step(CLEAN, gradient, 0.25)
    torch.testing.assert_close(stepped, CLEAN + 0.25 * gradient.sign())
    each = budget.step(CLEAN, gradient, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(each[1], CLEAN[1] + 0.5 * gradient[1].sign())
    advanced = budget.advance(CLEAN, gradient, 0.25, CLEAN)
    assert torch.equal(advanced, budget.project(stepped, CLEAN))
    assert budget.radius(CLEAN) == 1
    assert budget.size(CLEAN).tolist() == [1, 1, 1]
    assert budget.select(torch.tensor([1])) is budget


@pytest.mark.parametrize("budget", [L0(3), Patch(2)], ids=repr)
def test_samples_use_the_whole_budget_and_follow_their_keys(budget):
    first, second = budget.sample(CLEAN, KEYS), budget.sample(CLEAN, KEYS, step=1)
    assert budget.contains(first, CLEAN).all()
    assert (first != CLEAN).any(dim=1).flatten(1).sum(dim=1).tolist() == [
        3 if isinstance(budget, L0) else 4
    ] * 3
    assert torch.equal(first, budget.sample(CLEAN, KEYS))
    assert not torch.equal(first, second)
    assert torch.equal(budget.sample(CLEAN[1:], KEYS[1:]), first[1:])


@pytest.mark.parametrize("eps", [0, -1, 1.5, "1/2", torch.tensor(2.0)])
@pytest.mark.parametrize("kind", [L0, Patch])
def test_numbers_of_pixels_are_whole_and_positive(kind, eps):
    with pytest.raises(ValueError, match="whole number of pixels, at least 1"):
        kind(eps)


@pytest.mark.parametrize("budget", [L0(2), Patch(2)], ids=repr)
def test_images_that_are_too_coarse_are_refused(budget):
    with pytest.raises(ValueError, match=r"float32 or float64 images, got torch\.float16"):
        budget.project(FAR.half(), CLEAN.half())
