"""Minimum-norm attacks beside foolbox, and beside the published formulas of DDN and FMN, written out here."""

import math

import pytest
import torch
from torch.nn import functional as F

from counterpart.attacks.carlini_wagner import carlini_wagner
from counterpart.attacks.decoupled_direction_norm import ddn
from counterpart.attacks.deepfool import deepfool
from counterpart.attacks.fast_minimum_norm import fmn
from counterpart.budget import NORMS
from counterpart.catalogue import ATTACKS
from counterpart.seeding import Keys

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def problem(robust_digits):
    """The model, and 64 images that it gets right."""
    model, images, labels = robust_digits
    right = (model(images).argmax(dim=1) == labels).nonzero()[:64, 0]
    return model, images[right], labels[right]


def ratios(problem, norm, attack, theirs, **options):
    """Our distances over theirs; 1 where neither fooled the model."""
    model, images, labels = problem
    keys = Keys(0, "reference", torch.arange(len(images)))
    ours = attack(model, images, labels, budget=NORMS[norm](1.0), keys=keys, **options).distances
    distance = NORMS[norm](1.0).distance(theirs, images)
    distance = torch.where(model(theirs).argmax(dim=1) != labels, distance, torch.inf)
    assert ours.isfinite().sum() >= distance.isfinite().sum() >= 50
    return torch.where(ours.isfinite() | distance.isfinite(), ours / distance, 1.0)


# No L2FMNAttack: its projection multiplies by norms / norms, so that perturbations are never cut to the ball.
@pytest.mark.parametrize(
    ("norm", "name", "attack", "options", "theirs"),
    [
        ("l2", "L2DeepFoolAttack", deepfool, {}, {}),
        ("linf", "LinfDeepFoolAttack", deepfool, {}, {}),
        ("l2", "DDNAttack", ddn, {}, {}),
        ("linf", "LInfFMNAttack", fmn, {}, {}),
        ("linf", "LInfFMNAttack", fmn, {"step_size": 10.0}, {"max_stepsize": 10.0}),
        ("l1", "L1FMNAttack", fmn, {}, {}),
        (
            "l2",
            "L2CarliniWagnerAttack",
            carlini_wagner,
            {"steps": 200, "learning_rate": 0.1},
            {"steps": 200, "stepsize": 0.1, "abort_early": False},
        ),
    ],
)
def test_as_near_as_foolbox(problem, norm, name, attack, options, theirs):
    foolbox = pytest.importorskip("foolbox", reason="needs foolbox: pip install foolbox")
    model, images, labels = problem
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    found = getattr(foolbox.attacks, name)(**theirs).run(
        wrapped, images, foolbox.criteria.Misclassification(labels)
    )
    ratio = ratios(problem, norm, attack, found, **options)
    assert ratio.median() == pytest.approx(1, abs=0.001)
    assert (ratio < 1.01).float().mean() > 0.95
    if norm != "l1":  # there the box is where the projections differ, and ours finds more
        assert (ratio > 0.98).float().mean() > 0.95


def published_ddn(model, images, labels, steps=100, gamma=0.05):
    """Algorithm 1 of Rony et al., image by image in the names of the paper, without rounding to levels."""
    x, delta = images, torch.zeros_like(images)
    eps = torch.ones(len(images), 1, 1, 1)
    best, nearest = images.clone(), torch.full((len(images),), torch.inf)
    for k in range(steps):
        alpha = 0.01 + 0.99 * (1 + math.cos(math.pi * k / steps)) / 2
        point = (x + delta).requires_grad_()
        logits = model(point)
        g = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), point)[0]
        adversarial = logits.argmax(dim=1) != labels
        size = delta.flatten(1).norm(dim=1)
        better = adversarial & (size < nearest)
        best[better], nearest[better] = point.detach()[better], size[better]
        delta = delta + alpha * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        eps = torch.where(adversarial.view(-1, 1, 1, 1), (1 - gamma) * eps, (1 + gamma) * eps)
        delta = eps * delta / delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = (x + delta).clamp(0, 1) - x
    return best


def onto_ball(delta, eps, norm):
    """Euclidean projection of rows; for l1 by the sorted sizes of Duchi et al. 2008."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        return delta * (eps / delta.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
    sizes = delta.abs().sort(dim=1, descending=True).values
    threshold = (sizes.cumsum(dim=1) - eps) / torch.arange(1, delta.shape[1] + 1)
    count = (sizes > threshold).sum(dim=1, keepdim=True)
    lowered = delta.sign() * (delta.abs() - threshold.gather(1, count - 1)).clamp_min(0)
    return torch.where(delta.abs().sum(dim=1, keepdim=True) <= eps, delta, lowered)


def published_fmn(model, images, labels, norm, steps=100, alpha=1.0):
    """Algorithm 1 of Pintor et al., without a start; vectors are rows."""
    p, q = {"linf": (torch.inf, 1), "l2": (2, 2), "l1": (1, torch.inf)}[norm]
    x, rows = images.flatten(1), range(len(images))
    delta, eps = torch.zeros_like(x), torch.full((len(x), 1), torch.inf)
    best, nearest = x.clone(), torch.full((len(x), 1), torch.inf)
    for k in range(steps):
        cosine = (1 + math.cos(math.pi * k / steps)) / 2
        alpha_k = alpha / 100 + (alpha - alpha / 100) * cosine
        gamma_k = 0.001 + (0.05 - 0.001) * cosine
        point = (x + delta).requires_grad_()
        logits = model(point.view_as(images))
        others = logits.clone()
        others[rows, labels] = -torch.inf
        loss = logits[rows, labels] - others.amax(dim=1)
        g = -torch.autograd.grad(loss.sum(), point)[0]
        loss = loss.detach()[:, None]
        adversarial = loss < 0
        size = torch.linalg.vector_norm(delta, p, dim=1, keepdim=True)
        better = adversarial & (size < nearest)
        best, nearest = torch.where(better, point.detach(), best), torch.where(better, size, nearest)
        to_boundary = loss.abs() / torch.linalg.vector_norm(g, q, dim=1, keepdim=True)
        failed = torch.where(nearest.isfinite(), (1 + gamma_k) * eps, size + to_boundary)
        eps = torch.where(adversarial, torch.minimum((1 - gamma_k) * eps, nearest), failed)
        delta = onto_ball(delta + alpha_k * g / g.norm(dim=1, keepdim=True), eps, norm)
        delta = (x + delta).clamp(0, 1) - x
    return best.view_as(images)


def test_ddn_is_as_near_as_its_algorithm(problem):
    ratio = ratios(problem, "l2", ddn, published_ddn(*problem))
    assert ratio.median() == pytest.approx(1, abs=0.001)
    assert ((ratio - 1).abs() < 0.01).float().mean() > 0.95


@pytest.mark.parametrize("norm", ATTACKS["fmn"].facts.norms)
def test_fmn_is_as_near_as_its_algorithm(problem, norm):
    ratio = ratios(problem, norm, fmn, published_fmn(*problem, norm))
    assert ratio.median() == pytest.approx(1, abs=0.01)
    assert (ratio < 1.01).float().mean() > 0.95
