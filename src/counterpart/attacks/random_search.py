"""Random points of the budget: what any attack must beat, and a check for models that fool gradients only."""

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..protocols import Attacked, Classifier, Probe
from ..seeding import Keys


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
        model: maps images in [0, 1] to logits (B, K). Call ``model.eval()`` first. No gradient is asked for.
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
    found = opening(images, budget, start)
    logits, forwards = ask(model, found, start)
    check_labels(labels, logits.shape[1])
    left = (logits.argmax(dim=1) == labels).nonzero()[:, 0]
    for draw in range(draws):
        if len(left) == 0:
            break
        points = budget.select(left).sample(images[left], keys[left].fold(draw))
        fooled = model(points).argmax(dim=1) != labels[left]
        forwards[left] += 1
        found[left[fooled]] = points[fooled]
        left = left[~fooled]
    return Attacked(found, forwards, torch.zeros_like(forwards))


def opening(images: Tensor, budget: Budget, start: Tensor | Probe | None) -> Tensor:
    """What is judged first: a copy of the clean images, or ``start``, moved into the budget."""
    return images.clone() if start is None else budget.project(images_of(start), images)


def ask(model: Classifier, images: Tensor, start: Tensor | Probe | None) -> tuple[Tensor, Tensor]:
    """Logits (B, K) of ``images``, and the passes (B,) that they cost: none where a probe has them."""
    if not isinstance(start, Probe):
        return model(images), torch.ones(len(images), dtype=torch.int64, device=images.device)
    unknown = (images != start.images).flatten(1).any(dim=1)
    logits = start.logits.detach().clone()
    if unknown.any():
        logits[unknown] = model(images[unknown])
    return logits, unknown.long()


def images_of(start: Tensor | Probe) -> Tensor:
    """The images of a start, without their graph."""
    return start.images.detach() if isinstance(start, Probe) else start.detach()
