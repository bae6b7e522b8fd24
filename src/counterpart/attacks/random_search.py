"""Random points of the budget: any attack must beat them, and they fool models that only mask their gradients."""

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..seeding import Keys
from .starts import ask, opening


@torch.no_grad()
def random_search(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    draws: int = 100,
) -> Attacked:
    """Ask ``model`` about uniformly random points of ``budget``.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``. No gradient is asked for.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm.
        keys: source of the points.
        start: ask about this first, moved into the budget, instead of the clean images.
        draws: points per image; only images that are not yet fooled meet the next.

    Returns:
        For each image the first point that fools, else the clean image (or ``start``). Always in ``budget``. Passes
        are counted per image, without the one that a given probe holds.
    """
    check_unit_range(images)
    perturbed = opening(images, budget, start)
    logits, forwards = ask(model, perturbed, start)
    check_labels(labels, logits.shape[1])
    survivors = (logits.argmax(dim=1) == labels).nonzero()[:, 0]
    for draw in range(draws):
        if len(survivors) == 0:
            break
        points = budget.select(survivors).sample(images[survivors], keys[survivors].fold(draw))
        fooled = model(points).argmax(dim=1) != labels[survivors]
        forwards[survivors] += 1
        perturbed[survivors[fooled]] = points[fooled]
        survivors = survivors[~fooled]
    return Attacked(perturbed, forwards, torch.zeros_like(forwards))
