"""Gradients that are means over several passes of a model that draws, and climbs that no chance hit stops."""

import pytest
import torch
from torch import nn

import counterpart
from counterpart.attacks import apgd, fgsm, pgd
from counterpart.budget import L2, Linf
from counterpart.losses.classification import cross_entropy


class Turned(nn.Module):
    """A linear model whose weights are others in each pass, in turn; it notes how often it was asked."""

    def __init__(self, weights):
        super().__init__()
        self.weights, self.asked = weights, 0

    def forward(self, images):
        weight = self.weights[self.asked % len(self.weights)]
        self.asked += 1
        return images.flatten(1) @ weight


@pytest.fixture
def problem(generator, keys):
    weights = [torch.randn(12, 3, generator=generator) for _ in range(4)]
    images = 0.3 + 0.4 * torch.rand(8, 3, 2, 2, generator=generator)
    labels = sum(images.flatten(1) @ weight for weight in weights).argmax(dim=1)
    return weights, images, labels, keys[:8]


def mean_gradient(weights, images, labels):
    gradients = []
    for weight in weights:
        leaf = images.clone().requires_grad_()
        losses = cross_entropy(leaf.flatten(1) @ weight, labels)
        gradients += torch.autograd.grad(losses.sum(), leaf)
    return torch.stack(gradients).mean(dim=0)


@pytest.mark.parametrize("form", [{"last_iterate": True}, {"to_the_end": True}])
def test_a_step_follows_the_mean_of_the_gradients_of_all_passes(problem, form):
    weights, images, labels, keys = problem
    model = Turned(weights)
    attacked = pgd(
        model,
        images,
        labels,
        budget=L2(0.1),
        keys=keys,
        steps=1,
        step_size=0.05,
        random_start=False,
        eot=4,
        **form,
    )
    gradient = mean_gradient(weights, images, labels)
    expected = images + 0.05 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(attacked.images, expected)
    single = pgd(
        Turned(weights),
        images,
        labels,
        budget=L2(0.1),
        keys=keys,
        steps=1,
        step_size=0.05,
        random_start=False,
        **form,
    )
    assert not torch.allclose(single.images, expected, atol=1e-3)
    passes = 4 if "last_iterate" in form else 8  # one more judges the last image, if only for the next start
    assert model.asked == passes
    assert attacked.forwards.tolist() == [passes] * 8
    assert attacked.backwards.tolist() == [4] * 8


def test_fgsm_steps_by_the_sign_of_the_mean(problem):
    weights, images, labels, keys = problem
    attacked = fgsm(Turned(weights), images, labels, budget=Linf(0.1), keys=keys, eot=4, to_the_end=True)
    expected = images + 0.1 * mean_gradient(weights, images, labels).sign()
    torch.testing.assert_close(attacked.images, expected)


def test_an_image_is_fooled_when_the_mean_answer_is_wrong(problem):
    """All four passes together are right at first, though single ones may be wrong: nothing stops before a step."""
    weights, images, labels, keys = problem
    single = torch.stack([images.flatten(1) @ weight for weight in weights]).argmax(dim=2)
    assert (single != labels).any()
    options = {"budget": Linf(0.0), "keys": keys, "steps": 3, "random_start": False}
    attacked = pgd(Turned(weights), images, labels, eot=4, **options)
    assert attacked.forwards.tolist() == [16] * 8


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_to_the_end_takes_every_step_where_an_image_is_fooled_already(problem, attack):
    weights, images, labels, keys = problem
    wrong = (labels + 1) % 3
    options = {"budget": Linf(0.1), "keys": keys, "steps": 5}
    stopped = attack(Turned(weights[:1]), images, wrong, **options)
    ended = attack(Turned(weights[:1]), images, wrong, to_the_end=True, **options)
    assert stopped.forwards.min() < 6
    assert ended.forwards.tolist() == [6] * 8
    assert ended.backwards.tolist() == [5] * 8

    def height(attacked):
        return cross_entropy(attacked.images.flatten(1) @ weights[0], wrong).mean()

    assert height(ended) > height(stopped)


def test_the_exported_attack_averages_too(problem):
    weights, images, labels, _ = problem
    model = Turned(weights)
    counterpart.pgd(model, images, labels, budget=Linf(0.1), steps=2, eot=4, last_iterate=True)
    assert model.asked == 8
    with pytest.raises(ValueError, match="eot=0: an attack needs at least 1"):
        counterpart.pgd(model, images, labels, budget=Linf(0.1), eot=0)
