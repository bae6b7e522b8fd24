"""Budget rules: from one forward pass on a batch to the budget of each of its images.

A rule is ``rule(probe, batch, keys) -> Budget``; bind its options with ``functools.partial``.
"""

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from ..batch import Batch
from ..budget import Budget, Linf
from ..protocols import Probe
from ..saliency.cam import probe_map
from ..seeding import Keys
from .masks import own_mean, paper_mask, radius_plane


@dataclass(frozen=True)
class Masked(Linf):
    """The budget that a mask draws: a plane (B, 1, H, W), and which maps could not tell any pixel from another.

    Attributes:
        flat: (B,) images that keep the full radius everywhere because their map was flat or not finite.
    """

    flat: Bool[Tensor, " b"]


def constant(probe: Probe, batch: Batch, keys: Keys, *, budget: Budget) -> Budget:
    """The same budget for every image: plain adversarial training."""
    return budget


def part(
    probe: Probe,
    batch: Batch,
    keys: Keys,
    *,
    eps: float,
    eps_low: float,
    mask: str = "paper",
    control: str = "none",
    map_class: str = "true",
) -> Masked:
    """The PART budget: ``eps`` where the class activation map is high, ``eps_low`` elsewhere.

    Args:
        probe: a forward pass on the images, clean or at a random start.
        batch: where it holds stored importance, that is used instead of a map of the probe.
        keys: of the batch's samples, for what is random.
        eps: radius of important pixels, in image units.
        eps_low: radius of the others.
        mask: "paper".
        control: "none", or "uniform": each image's plane replaced by its own mean.
        map_class: the class that the map explains, "true" or "predicted".

    Returns:
        One plane (B, 1, H, W). A flat or NaN map means ``eps`` everywhere, and its image is ``flat``.
    """
    maps = batch.importance if batch.importance is not None else explain(probe, batch.labels, map_class)
    height, width = batch.images.shape[2:]
    found = paper_mask(maps, (height, width))
    plane = radius_plane(found, eps, eps_low)
    return Masked(own_mean(plane) if control == "uniform" else plane, found.flat)


def explain(probe: Probe, labels: Tensor, map_class: str) -> Tensor:
    """Class activation maps (B, h, w) of a probe, for the "true" or the "predicted" class."""
    targets = labels if map_class == "true" else probe.logits.argmax(dim=1)
    return probe_map(probe, targets)
