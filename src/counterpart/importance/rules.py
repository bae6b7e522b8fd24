"""Budget rules: from one forward pass on a batch to the budget of each of its images.

A rule is ``rule(probe, batch) -> Budget``; bind its options with ``functools.partial``.
"""

import torch
from torch import Tensor

from ..batch import Batch
from ..budget import Budget, Linf
from ..protocols import Probe
from ..saliency.cam import probe_map
from .masks import own_mean, paper_mask, radius_plane


def constant(probe: Probe, batch: Batch, *, budget: Budget) -> Budget:
    """The same budget for every image: plain adversarial training."""
    return budget


def part(
    probe: Probe, batch: Batch, *, eps: float, eps_low: float, mask: str = "paper", map_class: str = "true"
) -> Linf:
    """The PART budget: ``eps`` where the class activation map is high, ``eps_low`` elsewhere.

    Args:
        probe: a forward pass on the images, clean or at a random start.
        batch: where it holds stored importance, that is used instead of a map of the probe.
        eps: radius of important pixels, in image units.
        eps_low: radius of the others.
        mask: "paper", or the control "uniform": each image's plane replaced by its own mean.
        map_class: the class that the map explains, "true" or "predicted".

    Returns:
        ``Linf`` with one plane (B, 1, H, W). A flat or NaN map means ``eps`` everywhere.
    """
    maps = batch.importance if batch.importance is not None else explain(probe, batch.labels, map_class)
    height, width = batch.images.shape[2:]
    plane = radius_plane(paper_mask(maps, (height, width)), eps, eps_low)
    return Linf(own_mean(plane) if mask == "uniform" else plane)


def explain(probe: Probe, labels: Tensor, map_class: str) -> Tensor:
    """Class activation maps (B, h, w) of a probe, for the "true" or the "predicted" class."""
    targets = labels if map_class == "true" else probe.logits.argmax(dim=1)
    return probe_map(probe, targets)


def full_budget(budget: Budget, full: Budget, images: Tensor) -> Tensor:
    """(B,) whether an image keeps the full budget on every pixel: under ``part``, its map was flat."""
    if not isinstance(budget, Linf) or not isinstance(full, Linf):
        return torch.ones(len(images), dtype=torch.bool, device=images.device)
    least = budget.radius(images).expand_as(images).flatten(1).amin(dim=1)
    return least >= full.size(images) * (1 - 1e-6)  # a mean over pixels rounds
