"""Sparse-PGD: a few pixels that take any value, by gradients of what they become and of which they are.

Zhong et al. 2024, arXiv 2405.05075, algorithm 1. The perturbation is a magnitude for every value times a mask of ``k``
pixels, the largest of continuous scores. Differs from the paper in two ways: the loss is the same throughout, whereas
the published code takes the margin where an answer is unsure; and fooled images leave the batch at once.
"""

import torch
from torch import Tensor

from ..budget import L0, Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import AttackLoss, cross_entropy
from ..seeding import Keys
from .starts import aim, images_of, leaf_and_logits

PATIENCE = 3  # the steps after which a mask that stayed the same is drawn anew
MAGNITUDE = 0.25  # the length of a step of a magnitude
MASK = 0.25  # that of a score, as root mean square over the pixels


def sparse_pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    loss: AttackLoss = cross_entropy,
    steps: int = 300,
    restarts: int = 1,
    projected: bool = False,
) -> Attacked:
    """Perturb a few pixels of ``images`` so that ``model`` misclassifies them.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: an ``L0``, which says how many pixels may move.
        keys: source of the random magnitudes and masks.
        start: take the magnitudes of the first restart from these images instead; the mask is drawn all the same.
        loss: per-image loss to increase.
        steps: gradient steps; each costs one forward and one backward pass, and the last image one forward more.
        restarts: independent random starts; only images that are not yet fooled meet the next.
        projected: move the magnitudes of the chosen pixels alone, and not of all.

    Returns:
        For each image the first that fools, else the one with the largest loss. Always in ``budget``.

    Raises:
        ValueError: the budget is no ``L0``.
    """
    check_unit_range(images)
    if not isinstance(budget, L0):
        raise ValueError(f"sparse_pgd has no {budget.norm} budget: it has L0, such as L0(10) for 10 pixels.")
    perturbed, height = images.clone(), torch.full_like(images[:, 0, 0, 0], -torch.inf)
    targets, spent = aim(model, images, labels, None, loss)
    forwards, backwards = torch.full_like(labels, spent), torch.zeros_like(labels)
    survivors, shape = torch.arange(len(images), device=images.device), tuple(images.shape[1:])
    for restart in range(restarts):
        draws, clean = keys[survivors].fold(restart), images[survivors]
        begin = draws.uniform(0, shape, stream=2).to(images)
        wanted = images_of(start)[survivors] if start is not None and restart == 0 else begin
        scores = draws.normal(0, (1, *shape[1:])).to(images)
        before, unchanged = torch.zeros_like(scores, dtype=torch.bool), torch.zeros_like(survivors)
        for step in range(steps + 1):
            if len(survivors) == 0:
                break
            chosen = budget.choose(scores[:, 0])
            leaf, logits = leaf_and_logits(model, torch.where(chosen, wanted, clean))
            if restart == step == 0:
                check_labels(labels, logits.shape[1])
            held = logits.argmax(dim=1) == labels[survivors]
            losses = loss(logits, labels[survivors], None if targets is None else targets[survivors])
            forwards[survivors] += 1
            better = ~held | (losses.detach() > height[survivors])
            perturbed[survivors[better]] = leaf.detach()[better]
            height[survivors[better]] = losses.detach()[better]
            if step < steps and bool(held.any()):
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
                backwards[survivors[held]] += 1  # so that counts do not depend on the rest of the batch
                unchanged = torch.where((chosen == before).flatten(1).all(dim=1), unchanged + 1, 0)
                scores = _move_scores(scores, gradient * (wanted - clean))
                redrawn = draws.normal(step + 1, (1, *shape[1:])).to(images)
                scores = torch.where((unchanged >= PATIENCE).view(-1, 1, 1, 1), redrawn, scores)
                along = gradient.sign() * chosen if projected else gradient.sign()
                wanted, before = (wanted + MAGNITUDE * along).clamp(0, 1), chosen
            survivors, draws, clean, wanted = survivors[held], draws[held], clean[held], wanted[held]
            scores, before, unchanged = scores[held], before[held], unchanged[held]
    return Attacked(perturbed, forwards, backwards)


def _move_scores(scores: Tensor, worth: Tensor) -> Tensor:
    """The scores (B, 1, H, W) after a step along the gradient of the loss, if the mask were their sigmoid.

    ``worth`` (B, C, H, W) is the gradient times the perturbation, which says what a pixel's being chosen adds.
    """
    share = scores.sigmoid()
    slope = worth.sum(dim=1, keepdim=True) * share * (1 - share)
    norm = torch.linalg.vector_norm(slope.flatten(1), dim=1).view(-1, 1, 1, 1)
    unit = slope / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    length = MASK * float(scores.shape[2] * scores.shape[3]) ** 0.5
    moved: Tensor = scores + length * unit
    return moved
