"""Patches: the budget, the exact projection onto it, and the attack beside exhaustive search."""

import pytest
import torch
from tests.conftest import LinearModel

import counterpart as cp
from counterpart.attacks.patch import patch, rank_windows
from counterpart.budget import L0, Linf, Patch
from counterpart.errors import UserError
from counterpart.seeding import Keys

COUNT = 16
LARGE, SMALL = (28, 5), (12, 2)  # the sides of an image and of a window


class Module(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images)


@pytest.fixture
def problem(request, generator):
    """A linear model of strokes on dark images of 28 x 28 pixels, and how far (B, N) each window can move the score.

    A pixel moves the score by its weight times the way to 0 or to 1, whichever lowers the margin more. So the worst
    window is found by trying all 24 x 24.
    """
    size, side = getattr(request, "param", LARGE)
    places = range(size - side + 1)
    weight = torch.randn(1, size, size, generator=generator)
    strokes = torch.rand(COUNT, 1, size, size, generator=generator)
    images = torch.where(strokes > 0.85, strokes, 0.0)
    model = LinearModel(weight, bias=0.0)
    labels = (model.score(images) > 0).long()
    sign = (2.0 * labels - 1).view(-1, 1, 1, 1)
    gains = torch.maximum((sign * weight) * images, -(sign * weight) * (1 - images))[:, 0]
    moves = torch.stack(
        [gains[:, y : y + side, x : x + side].sum(dim=(1, 2)) for y in places for x in places], dim=1
    )
    return model, images, labels, model.score(images).abs(), moves, side


@pytest.mark.parametrize(("problem", "search"), [(LARGE, "pgd"), (SMALL, "apgd")], indirect=["problem"])
def test_the_worst_window_is_that_of_exhaustive_search(problem, search):
    model, images, labels, margin, moves, side = problem
    falls = moves.amax(dim=1) > margin
    assert 3 < falls.sum() < COUNT - 3
    attacked = patch(
        model, images, labels,
        budget=Patch(side), keys=Keys(0, "patch", torch.arange(COUNT)), search=search, steps=8, stride=1,
    )  # fmt: skip
    assert torch.equal(model(attacked.images).argmax(dim=1) != labels, falls)
    assert Patch(side).contains(attacked.images, images).all()
    # The place is told by the image, and this window alone is enough to fool the model.
    corners = Patch(side).corners(attacked.images, images)[falls]
    assert (
        moves[falls].gather(1, corners[:, :1] * (images.shape[3] - side + 1) + corners[:, 1:])[:, 0]
        > margin[falls]
    ).all()


@pytest.mark.parametrize("problem", [SMALL], indirect=True)
def test_where_none_falls_the_worst_window_is_returned(problem):
    model, images, labels, margin, moves, side = problem
    stands = moves.amax(dim=1) < margin
    keys = Keys(0, "patch", torch.arange(int(stands.sum())))
    attacked = patch(model, images[stands], labels[stands], budget=Patch(side), keys=keys, steps=5, stride=1)
    remaining = model.score(attacked.images).abs()
    assert torch.allclose(remaining, (margin - moves.amax(dim=1))[stands], atol=1e-4)


def test_windows_lie_on_the_grid_and_the_largest_gradient_comes_first():
    gradient = torch.zeros(1, 1, 8, 8)
    gradient[0, 0, 4, 4] = -3
    gradient[0, 0, 0, 0] = 2
    ranked = rank_windows(Patch(3), gradient, stride=2)[0].tolist()
    assert sorted(ranked) == [[y, x] for y in (0, 2, 4, 5) for x in (0, 2, 4, 5)]
    assert sorted(ranked[:4]) == [[2, 2], [2, 4], [4, 2], [4, 4]]
    assert ranked[4] == [0, 0]
    assert len(rank_windows(Patch(20), gradient, stride=1)[0]) == 1  # the window is the whole image


def test_as_many_windows_are_tried_as_are_asked_for(problem):
    model, images, labels, _, _, _ = problem
    attacked = patch(
        model, images, labels, budget=Patch(1), keys=Keys(0, "p", torch.arange(COUNT)), steps=3, windows=4
    )
    held = model(attacked.images).argmax(dim=1) == labels
    assert set(attacked.forwards[held].tolist()) == {1 + 4 * (4 + 1)}
    assert set(attacked.backwards[held].tolist()) == {1 + 4 * 3}


def test_another_budget_is_refused(problem):
    model, images, labels, _, _, _ = problem
    with pytest.raises(ValueError, match="patch has no linf budget"):
        patch(model, images, labels, budget=Linf(0.1), keys=Keys(0, "p", torch.arange(COUNT)))


@pytest.mark.parametrize("budget", [L0(3), Patch(2)], ids=repr)
def test_projection_is_the_nearest_of_all_allowed_images(budget, generator):
    """All sets of pixels are tried on small images of two channels."""
    clean = torch.rand(50, 2, 4, 3, generator=generator)
    wanted = clean + torch.randn(clean.shape, generator=generator)
    if isinstance(budget, L0):
        sets = torch.combinations(torch.arange(12), 3)
        masks = torch.zeros(len(sets), 12).scatter_(1, sets, 1.0).view(-1, 1, 4, 3)
    else:
        corners = torch.cartesian_prod(torch.arange(3), torch.arange(2))
        masks = torch.zeros(6, 1, 4, 3)
        for mask, (y, x) in zip(masks, corners.tolist(), strict=True):
            mask[:, y : y + 2, x : x + 2] = 1
    every = torch.where(masks[None].bool(), wanted.clamp(0, 1)[:, None], clean[:, None])
    nearest = (every - wanted[:, None]).square().flatten(2).sum(dim=2).amin(dim=1)
    projected = budget.project(wanted, clean)
    assert torch.allclose((projected - wanted).square().flatten(1).sum(dim=1), nearest)
    assert budget.contains(projected, clean).all()
    assert torch.equal(budget.project(projected, clean), projected)
    assert not budget.contains(wanted, clean).any()


@pytest.mark.parametrize("budget", [L0(7), Patch(4)], ids=repr)
def test_random_points_are_allowed_and_use_the_whole_budget(budget):
    clean = torch.full((64, 3, 9, 9), 0.5)
    keys = Keys(0, "sample", torch.arange(64))
    points = budget.sample(clean, keys)
    assert torch.equal(budget.distance(points, clean), torch.ones(64))
    assert budget.contains(points, clean).all()
    moved = (points != clean).any(dim=1)
    assert set(moved.flatten(1).sum(dim=1).tolist()) == {7 if isinstance(budget, L0) else 16}
    assert moved.any(dim=0).all()  # every place is met


def test_a_patch_that_is_too_large_or_leaves_the_range_is_not_allowed():
    clean = torch.zeros(4, 1, 6, 6)
    images = clean.clone()
    images[0, 0, 1, 1] = images[0, 0, 3, 3] = 1  # 3 x 3
    images[1, 0, 1, 1] = images[1, 0, 1, 4] = 1  # 1 x 4
    images[2, 0, 5, 5] = 1.5
    assert Patch(3).contains(images, clean).tolist() == [True, False, False, True]
    assert Patch(3).distance(images, clean).tolist() == pytest.approx([1, 4 / 3, 1 / 3, 0])
    assert Patch(3).corners(images, clean).tolist() == [[1, 1], [0, 2], [3, 3], [0, 0]]


@pytest.mark.parametrize("eps", [0, 2.5, -1, torch.ones(2)])
def test_half_a_pixel_is_refused(eps):
    with pytest.raises(ValueError, match="a whole number of pixels"):
        Patch(eps)


@pytest.mark.parametrize("problem", [SMALL], indirect=True)
def test_an_evaluation_judges_patches_and_verifies_them(problem):
    model, images, labels, margin, moves, side = problem
    attacks = ["random-search", {"attack": "patch", "steps": 5, "stride": 1}]
    judged = cp.evaluate(Module(model), (images, labels), norm="patch", eps=[1, side], attacks=attacks)
    assert [row.fooled != () for row in judged.rows] == (moves.amax(dim=1) > margin).tolist()
    small, large = judged.curve()
    assert small.value > large.value
    assert judged.verify()
    with pytest.raises(UserError, match="attack pgd has no patch"):
        cp.evaluate(Module(model), (images, labels), norm="patch", eps=3, attacks="pgd")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 2.5}, "a whole number of pixels, at least 1; got 2.5"),
        ({"eps": 3, "precision": "bf16"}, "evaluate.norm patch does not go with evaluate.precision bf16"),
        ({"eps": 3, "parts": True}, "evaluate.norm patch does not go with evaluate.parts"),
    ],
)
def test_what_does_not_go_with_patches_is_refused(settings, message, problem):
    model, images, labels, *_ = problem
    changes = {f"evaluate.{name}": value for name, value in {**settings, "norm": "patch"}.items()}
    with pytest.raises(UserError, match=message):
        cp.evaluate(Module(model), (images, labels), attacks="patch", changes=changes)


def test_patches_are_not_audited(problem):
    model, images, labels, *_ = problem
    with pytest.raises(UserError, match="attack pgd has no patch"):
        cp.audit(Module(model), (images, labels), norm="patch", eps=3)
