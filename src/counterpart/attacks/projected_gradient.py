"""Projected gradient descent, in the form that judges a model and in the form that trains one.

Madry et al. 2018, arXiv 1706.06083. Differs from the paper in one way: the radius may differ from pixel to
pixel, the step length does not.
"""

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..losses.classification import AttackLoss, cross_entropy
from ..protocols import Attacked, Classifier, Probe
from ..seeding import Keys


def pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    loss: AttackLoss = cross_entropy,
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = True,
    last_iterate: bool = False,
) -> Attacked:
    """Perturb ``images`` within ``budget`` so that ``model`` misclassifies them.

    Args:
        model: maps images in [0, 1] to logits (B, K). Call ``model.eval()`` first.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel.
        keys: source of the random starts.
        start: begin the first restart here instead: images, or a probe of them, whose forward pass is then
            not made again. They may lie outside the budget: the first step enters it.
        loss: per-image loss to increase.
        steps: gradient steps; each costs one forward and one backward pass.
        step_size: absolute step length, or one per image (B,); default 2.5 / steps of each image's largest radius.
        restarts: independent random starts; only images that are not yet fooled meet the next.
        random_start: begin at a random allowed image instead of the clean one.
        last_iterate: for training: take every step for every image and return where it ends, unjudged.

    Returns:
        For each image the first adversarial one met, else its last iterate; with ``last_iterate`` always that.
        Always in ``budget``. Passes are counted per image, without the one that a given probe holds.
    """
    check_unit_range(images)
    length = step_size if step_size is not None else budget.size(images) * (2.5 / steps)

    def first(restart: int) -> Tensor:
        return budget.sample(images, keys.fold(restart)) if random_start else images

    if last_iterate:
        current = first(0) if start is None else start
        forwards = steps - isinstance(current, Probe)
        for step in range(steps):
            leaf, logits = _forward(model, current)
            if step == 0:  # not in every step: it waits for the device
                check_labels(labels, logits.shape[1])
            (gradient,) = torch.autograd.grad(loss(logits, labels).sum(), leaf)
            current = budget.project(budget.step(leaf.detach(), gradient, length), images)
        return Attacked(_images(current), torch.full_like(labels, forwards), torch.full_like(labels, steps))

    found = images.clone()
    forwards_of, backwards_of = torch.zeros_like(labels), torch.zeros_like(labels)
    left = torch.arange(len(images), device=images.device)  # not fooled so far
    for restart in range(restarts):
        given = _images(start) if start is not None and restart == 0 else first(restart)
        active, within = left, budget.select(left)
        clean, current, answers = (
            images[active],
            within.project(given[active], images[active]),
            labels[active],
        )
        for step in range(steps + 1):  # the extra pass only judges the last iterate
            if len(active) == 0:
                break
            leaf, logits = _forward(model, current)
            if restart == step == 0:
                check_labels(answers, logits.shape[1])
            forwards_of[active] += 1
            found[active] = current
            held = logits.argmax(dim=1) == answers
            if step < steps and held.any():
                # The gradient of all rows: a backward pass on some of them would need another forward pass.
                (gradient,) = torch.autograd.grad(loss(logits, answers).sum(), leaf)
                backwards_of[active[held]] += 1  # so that counts do not depend on the rest of the batch
                current = within.step(current, gradient, _rows(length, active))
            if not held.all():
                active, within = active[held], within.select(held)
                clean, current, answers = clean[held], current[held], answers[held]
            current = within.project(current, clean)
        left = active
    return Attacked(found, forwards_of, backwards_of)


def _forward(model: Classifier, images: Tensor | Probe) -> tuple[Tensor, Tensor]:
    """A leaf and its logits; a probe has both."""
    if isinstance(images, Probe):
        return images.images, images.logits
    leaf = images.detach().requires_grad_()
    return leaf, model(leaf)


def _images(start: Tensor | Probe) -> Tensor:
    return start.images.detach() if isinstance(start, Probe) else start.detach()


def _rows(length: float | Tensor, rows: Tensor) -> float | Tensor:
    return length[rows] if isinstance(length, Tensor) else length
