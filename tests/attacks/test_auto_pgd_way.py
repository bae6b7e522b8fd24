"""The way of APGD, step by step, beside its algorithm written out for one image after the other."""

import math

import pytest
import torch
from torch import nn

from counterpart.attacks.auto_pgd import apgd, checkpoints
from counterpart.budget import L1, L2, Linf
from counterpart.losses.classification import margin
from counterpart.seeding import Keys, seeded

STEPS = 40
RHO = 0.75
IMAGES = 12


class Watched(nn.Module):
    """Keeps every image that it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, images):
        self.asked.append(images.detach().clone())
        return self.model(images)


@pytest.fixture(scope="module")
def problem():
    """A curved model in float64, so that rounding decides no comparison; images, and any labels."""
    with seeded(3):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, 24), nn.SiLU(), nn.Linear(24, 5)
        )
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.weight.data *= 3
        images = torch.rand(IMAGES, 3, 4, 4).double()
    model = model.double().requires_grad_(False)
    return model, images, model(images).argmax(dim=1)


def look(model, image, label):
    """The loss of one image and its gradient."""
    image = image.clone().requires_grad_()
    loss = margin(model(image), label)[0]
    return float(loss.detach()), torch.autograd.grad(loss, image)[0]


def way_by_momentum(model, clean, label, budget, start):
    """Algorithm 1 of Croce and Hein 2020: the iterates of one image."""
    image = before = start
    loss, gradient = look(model, image, label)
    best, best_gradient, best_loss = image, gradient, loss
    last_loss, rises, length = 0.0, 0, 2 * float(budget.eps)
    last_check, loss_then, shortened_then = 0, best_loss, True
    way = [image]
    for step in range(1, STEPS + 1):
        reached = budget.project(budget.step(image, gradient, length), clean)
        if step > 1:
            mixed = image + 0.75 * (reached - image) + 0.25 * (image - before)
            reached = budget.project(mixed, clean)
        before, image = image, reached
        way.append(image)
        loss, gradient = look(model, image, label)
        rises += loss > last_loss
        last_loss = loss
        if loss > best_loss:
            best, best_gradient, best_loss = image, gradient, loss
        if step in checkpoints(STEPS):
            seldom = rises <= RHO * (step - last_check)
            in_vain = not shortened_then and best_loss <= loss_then
            if seldom or in_vain:
                length /= 2
                image, gradient = best, best_gradient
            last_check, loss_then, shortened_then, rises = step, best_loss, seldom or in_vain, 0
    return way


def way_in_l1(model, clean, label, budget, start, steps, opening):
    """The iterates of one image in one ball of l1, and the best of them."""
    image = best = budget.project(start, clean)
    best_loss, gradient = look(model, image, label)
    best_gradient = gradient
    support, share = count_moved(image, clean), 1.0
    if opening:
        support = max(support, 1.5 * 0.2 * 48)  # the first step moves a fifth of the values
    way = [image]
    for step in range(1, steps + 1):
        chosen = gradient.abs().flatten().sort(descending=True).indices[: max(1, math.ceil(support / 1.5))]
        move = torch.zeros_like(gradient).flatten()
        move[chosen] = gradient.flatten()[chosen].sign()
        length = share * float(budget.eps) / move.abs().sum()
        image = budget.project(image + length * move.view_as(image), clean)
        way.append(image)
        loss, gradient = look(model, image, label)
        if loss > best_loss:
            best, best_gradient, best_loss = image, gradient, loss
        if step % max(int(0.04 * steps), 1) == 0:
            moved = count_moved(best, clean)
            if moved < 0.95 * support:
                share, image, gradient = 1.0, best, best_gradient
            else:
                share = max(share / 1.5, 0.1)
            support = moved
    return way, best


def count_moved(image, clean):
    return int(((image - clean).abs() > 1e-6).sum())


def ours(problem, budget, start):
    model, images, labels = problem
    watched = Watched(model)
    keys = Keys(0, "way", torch.arange(IMAGES))
    options = {"loss": margin, "steps": STEPS, "rho": RHO, "to_the_end": True}
    attacked = apgd(watched, images, labels, budget=budget, keys=keys, start=start, **options)
    assert budget.contains(attacked.images, images).all()
    return torch.stack(watched.asked, dim=1)


@pytest.mark.parametrize("budget", [Linf(0.1), L2(1.0)], ids=["linf", "l2"])
def test_every_step_is_the_published_one(problem, budget, generator):
    model, images, labels = problem
    start = budget.sample(images, Keys(1, "start", torch.arange(IMAGES)))
    asked = ours(problem, budget, start)
    for row in range(IMAGES):
        only = slice(row, row + 1)
        way = way_by_momentum(model, images[only], labels[only], budget, start[only])
        torch.testing.assert_close(asked[row], torch.cat(way), atol=1e-6, rtol=0)


def test_every_step_in_l1_is_the_published_one(problem):
    model, images, labels = problem
    start = L1(9.0).project(images + torch.linspace(-1, 1, images.numel()).view_as(images), images)
    asked = ours(problem, L1(3.0), start)
    for row in range(IMAGES):
        only = slice(row, row + 1)
        point, way = start[only], []
        for factor, steps in ((3, 12), (2, 12), (1, 16)):
            stage, point = way_in_l1(
                model, images[only], labels[only], L1(3.0 * factor), point, steps, factor == 3
            )
            way += stage
        torch.testing.assert_close(asked[row], torch.cat(way), atol=1e-6, rtol=0)
