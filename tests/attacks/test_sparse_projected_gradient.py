"""Sparse-PGD beside the closed form of linear models: the k pixels that move the score most, each to 0 or 1."""

import pytest
import torch
from tests.conftest import LinearModel
from torch import nn

import counterpart as cp
from counterpart.attacks import sparse_pgd
from counterpart.attacks.sparse_projected_gradient import PATIENCE
from counterpart.budget import L0, Linf
from counterpart.seeding import Keys

COUNT = 100


class Linear(nn.Module):
    """The linear model as a module."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images)


@pytest.fixture(params=[(3, 8, 1), (1, 28, 5)], ids=str)
def problem(request, generator):
    """A linear model, images, labels, the number of pixels, how far each is from the other class, and how far they go.

    A pixel moves the score by the sum over its channels of the weight times the way to 0 or to 1, whichever is worth
    more.
    """
    channels, size, count = request.param
    weight = torch.randn(channels, size, size, generator=generator)
    images = torch.rand(COUNT, channels, size, size, generator=generator)
    model = LinearModel(weight, float(-weight.sum() / 2))
    labels = (model.score(images) > 0).long()
    sign = (2.0 * labels - 1).view(-1, 1, 1, 1)
    gains = torch.maximum(sign * weight * images, -sign * weight * (1 - images)).sum(dim=1).flatten(1)
    return model, images, labels, count, model.score(images).abs(), gains.topk(count, dim=1).values.sum(dim=1)


def attack(problem, **options):
    model, images, labels, count, *_ = problem
    return sparse_pgd(
        model, images, labels, budget=L0(count), keys=Keys(0, "l0", torch.arange(COUNT)), **options
    )


def test_exactly_those_fall_that_the_closed_form_says(problem):
    model, images, labels, count, margin, reach = problem
    falls = reach > margin
    assert 20 < falls.sum() < 95
    attacked = attack(problem, steps=300)
    assert torch.equal(model(attacked.images).argmax(dim=1) != labels, falls)
    assert L0(count).contains(attacked.images, images).all()
    remaining = model.score(attacked.images).abs()[~falls]
    assert torch.allclose(remaining, (margin - reach)[~falls], atol=1e-3)


def test_magnitudes_of_all_pixels_learn_more_than_those_of_the_chosen(problem):
    model, _, labels, *_ = problem
    fooled = {
        projected: model(attack(problem, steps=30, projected=projected).images).argmax(dim=1) != labels
        for projected in (False, True)
    }
    assert fooled[False].sum() > fooled[True].sum() > 0


def test_passes_are_those_of_the_steps(problem):
    model, _, labels, *_ = problem
    attacked = attack(problem, steps=7, restarts=2)
    held = model(attacked.images).argmax(dim=1) == labels
    assert set(attacked.forwards[held].tolist()) == {2 * 8}
    assert set(attacked.backwards[held].tolist()) == {2 * 7}


def test_an_image_meets_the_same_attack_alone(problem):
    model, images, labels, count, *_ = problem
    together, keys = attack(problem, steps=20), Keys(0, "l0", torch.arange(COUNT))
    for row in (0, 7):
        alone = sparse_pgd(
            model,
            images[row : row + 1],
            labels[row : row + 1],
            budget=L0(count),
            keys=keys[row : row + 1],
            steps=20,
        )
        assert torch.equal(alone.images[0], together.images[row])


def test_a_mask_that_stays_the_same_is_drawn_anew():
    """A model that no pixel moves: its gradient is 0, so that only a new draw changes the mask."""
    seen = []

    def model(images):
        seen.append((images != 0.5).any(dim=1).flatten(1).float().argmax(dim=1).item())
        return torch.tensor([[1.0, 0.0]]) + 0 * images.flatten(1).sum(dim=1, keepdim=True)

    images = torch.full((1, 1, 6, 6), 0.5)
    labels = torch.zeros(1, dtype=torch.int64)
    sparse_pgd(
        model, images, labels, budget=L0(1), keys=Keys(0, "l0", torch.arange(1)), steps=2 * PATIENCE + 2
    )
    assert len(set(seen[: PATIENCE + 1])) == 1
    assert seen[PATIENCE + 1] != seen[0]


def test_another_budget_is_refused(problem):
    model, images, labels, *_ = problem
    with pytest.raises(ValueError, match="sparse_pgd has no linf budget"):
        sparse_pgd(model, images, labels, budget=Linf(0.1), keys=Keys(0, "l0", torch.arange(COUNT)))


def test_an_evaluation_in_l0(problem):
    model, images, labels, count, margin, reach = problem
    judged = cp.evaluate(
        Linear(model), (images, labels), norm="l0", eps=count, attacks=["random-search", "sparse-pgd"]
    )
    assert [row.fooled != () for row in judged.rows] == (reach > margin).tolist()
    assert judged.keys() == ["clean", "random search-100", "sparse PGD-300", "worst case"]
    assert judged.verify()
