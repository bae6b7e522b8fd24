"""FAB beside the published code, on a small network and at uniform radii."""

import pytest
import torch
from torch import nn

from counterpart.attacks.fast_adaptive_boundary import fab
from counterpart.budget import NORMS
from counterpart.seeding import Keys, seeded

pytestmark = pytest.mark.reference
pytest.importorskip("pyautoattack", reason="needs the published code: pip install --no-deps pyautoattack")

PUBLISHED = {"linf": "Linf", "l2": "L2", "l1": "L1"}
STEPS = 30
RANK = 2  # a target that is not the nearest class


@pytest.fixture(scope="module")
def problem():
    """A small convolutional network that has learnt 5 noisy patterns, and 64 images that it knows."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(5, 3, 8, 8, generator=generator)
    labels = torch.arange(256) % 5
    images = (0.5 * patterns[labels] + 0.5 * torch.rand(256, 3, 8, 8, generator=generator)).clamp(0, 1)
    images[:, :, 0] = images[:, :, 0].round()  # some pixels at the edge of the box
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 5)
        )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    model.eval().requires_grad_(False)
    known = (model(images).argmax(dim=1) == labels).nonzero()[:64, 0]
    assert len(known) == 64
    return model, images[known], labels[known]


def published_distances(model, images, labels, norm, target):
    from pyautoattack.fab_pt import FABAttack_PT

    attack = FABAttack_PT(model, norm=PUBLISHED[norm], n_iter=STEPS, targeted=target is not None)
    if target is not None:
        attack.target_class = target + 1  # it counts the true class as the first
    found = attack.attack_single_run(images, labels, is_targeted=target is not None)
    distance = NORMS[norm](1.0).distance(found, images)
    return torch.where(model(found).argmax(dim=1) != labels, distance, torch.inf)


def survivors(problem, norm, target, eps):
    model, images, labels = problem
    budget, keys = NORMS[norm](eps), Keys(0, "fab", torch.arange(len(images)))
    attacked = fab(model, images, labels, budget=budget, keys=keys, target=target, steps=STEPS)
    assert budget.contains(attacked.images, images).all()
    return model(attacked.images).argmax(dim=1) == labels


@pytest.mark.parametrize("target", [None, RANK])
@pytest.mark.parametrize("norm", PUBLISHED)
def test_finds_each_image_at_the_same_distance(problem, norm, target):
    """Ours stops at the first point in its budget: it must find one just above their least distance, and none below."""
    distance = published_distances(*problem, norm, target)
    assert distance.isfinite().all()
    assert not survivors(problem, norm, target, distance * 1.0005).any()
    assert survivors(problem, norm, target, distance * 0.9995).all()


@pytest.mark.parametrize("norm", PUBLISHED)
def test_the_same_images_survive(problem, norm):
    distance = published_distances(*problem, norm, None)
    eps = float(distance.quantile(0.4))  # between two distances
    assert torch.equal(survivors(problem, norm, None, eps), distance > eps)
