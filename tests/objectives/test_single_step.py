"""N-FGSM: noise beyond the budget and one step, all of it multiplied by what a mask leaves of the radius."""

import pytest
import torch

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.importance import rules
from counterpart.objectives import n_fgsm
from counterpart.seeding import Keys

EPS = 8 / 255


@pytest.fixture
def problem(linear_problem):
    model, images, labels = linear_problem
    return model, Batch(images, labels, torch.arange(64)), Keys(0, "train", torch.arange(64))


def perturbed(problem, rule=rules.constant, **options):
    model, batch, keys = problem
    return n_fgsm(budget=Linf(EPS), rule=rule, **options).perturb(model, batch, keys)


def by_hand(problem, noise, length):
    """On a linear model the gradient's sign is that of the weights, away from the label, wherever it is taken."""
    model, batch, keys = problem
    drawn = (2 * keys.uniform(0, (3, 8, 8)) - 1) * noise * EPS
    away = torch.where(batch.labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    return batch.images + drawn + length * away * model.weight.sign()


@pytest.mark.parametrize(("options", "noise", "length"), [
    ({}, 2, EPS), ({"noise": 0}, 0, EPS), ({"noise": 1, "step_size": 0.01}, 1, 0.01),
])  # fmt: skip
def test_a_linear_model_is_attacked_as_equation_5_says(problem, options, noise, length):
    torch.testing.assert_close(perturbed(problem, **options).images, by_hand(problem, noise, length))


def test_a_pixel_that_the_model_does_not_see_moves_by_noise_alone(problem):
    model, batch, keys = problem
    model.weight[0] = 0
    moved = (n_fgsm(budget=Linf(EPS), rule=rules.constant).perturb(model, batch, keys).images - batch.images)[
        :, 0
    ]
    torch.testing.assert_close(moved, (2 * keys.uniform(0, (3, 8, 8)) - 1)[:, 0] * 2 * EPS)


def test_nothing_but_the_image_range_ends_the_step(problem):
    model, batch, keys = problem
    moved = (perturbed(problem).images - batch.images).abs()
    assert 2.5 * EPS < moved.max() <= 3 * EPS + 1e-6
    dark = Batch(torch.zeros_like(batch.images), batch.labels, batch.index)
    images = perturbed((model, dark, keys)).images
    assert images.min() == 0
    assert images.max() <= 3 * EPS + 1e-6


def test_a_mask_multiplies_noise_and_step_together(problem):
    shares = torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1).expand(64, 3, 8, 8)
    masked = perturbed(problem, rule=lambda probe, batch, keys, full: Linf(EPS * shares))
    clean = problem[1].images
    torch.testing.assert_close(masked.images - clean, shares * (perturbed(problem).images - clean))
    assert masked.counts["radius"] == pytest.approx(64 * EPS * 1.25 / 3)


def test_a_mask_takes_its_share_of_a_step_that_the_image_range_has_ended(problem):
    """Noise and step each end at 1, before the share is taken."""
    model, batch, keys = problem
    bright = Batch(0.97 + 0 * batch.images, batch.labels, batch.index)
    half = perturbed((model, bright, keys), rule=lambda probe, batch, keys, full: Linf(full.eps / 2)).images
    drawn = (2 * keys.uniform(0, (3, 8, 8)) - 1) * 2 * EPS
    away = torch.where(batch.labels == 0, 1.0, -1.0).view(-1, 1, 1, 1) * model.weight.sign()
    end = ((bright.images + drawn).clamp(0, 1) + EPS * away).clamp(0, 1)
    torch.testing.assert_close(half, (bright.images + end) / 2)


def test_the_mask_costs_no_pass_unless_it_is_drawn_on_the_clean_image(problem):
    clean = problem[1].images
    seen = []

    def rule(probe, batch, keys, full):
        seen.append(probe.images)
        return full

    start = by_hand(problem, 2, 0)
    perturbed(problem, rule=rule)
    perturbed(problem, rule=rule, drawn_from="clean")
    torch.testing.assert_close(seen[0].detach(), start)
    assert torch.equal(seen[1], clean)


def test_a_radius_of_nothing_moves_nothing(problem):
    model, batch, keys = problem
    images = n_fgsm(budget=Linf(0.0), rule=rules.constant).perturb(model, batch, keys).images
    assert torch.equal(images, batch.images)
