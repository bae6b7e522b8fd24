"""Budget rules: from one forward pass on a batch to the budget of each of its images.

A rule is ``rule(probe, batch, keys) -> Budget``; bind its options with ``functools.partial``.
"""

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from ..batch import Batch
from ..budget import Budget, Linf
from ..part_maps import predicted_parts
from ..protocols import Probe
from ..saliency import probe_map, score_weights
from ..seeding import Keys
from . import controls, masks
from .masks import Mask


@dataclass(frozen=True)
class Masked(Linf):
    """The budget that a mask draws: a radius per pixel, and which maps could not tell any pixel from another.

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
    kind: str = "grad-cam",
    map_class: str = "true",
    quantile: float = 0.25,
    quadrant: str = "upper-left",
) -> Masked:
    """The PART budget: ``eps`` where the class activation map is high, ``eps_low`` elsewhere.

    Args:
        probe: a forward pass on the images, clean or at a random start; masks without a map do not look at it.
        batch: where it holds stored importance, that is used instead of a map of the probe; for mask "file" it is
            the mask itself.
        keys: of the batch's samples, for what is random.
        eps: radius of important pixels, in image units.
        eps_low: radius of the others.
        mask: "paper", "quantile", "soft", "mean-preserving" or "published-code" (see ``importance.masks``); or,
            without a map, "quadrant", "centre", "file", "predicted-parts" of a part model's probe, or
            "annotated-parts" of the batch (an image without annotation is flat).
        control: "none", "uniform", "shuffled", "random" or "inverse" (see ``importance.controls``).
        kind: of map: one of ``saliency.MAPS``.
        map_class: what the map explains: the "true" class, the "predicted" one, or the "margin" between the true
            class and the best other.
        quantile: share of important pixels, for masks that count them.
        quadrant: the quarter with the small radius, for mask "quadrant".

    Returns:
        One plane (B, 1, H, W), or (B, 3, H, W) for "published-code". A flat or NaN map, or no mask in a file,
        means ``eps`` everywhere, whatever mask and control, and its image is ``flat``.

    Raises:
        ValueError: an unknown name, "published-code" for images without three channels, or parts that nobody
            predicts or annotated.
    """
    size = (batch.images.shape[2], batch.images.shape[3])
    found = _without_map(mask, probe, batch, quantile, quadrant)
    if found is None:
        stored = batch.importance
        maps = stored if stored is not None else explain(probe, batch.labels, map_class, kind)
        found = _of_map(mask, maps, size, keys, quantile)
    if found.share.shape[1] not in (1, batch.images.shape[1]):
        raise ValueError(
            f"Mask {mask} has three channels, the images have {batch.images.shape[1]}. Use another mask."
        )
    middle = 1.0 if mask == "mean-preserving" else 0.5
    return Masked(masks.radius_plane(_controlled(found, control, keys, middle), eps, eps_low), found.flat)


def explain(probe: Probe, labels: Tensor, map_class: str, kind: str = "grad-cam") -> Tensor:
    """Maps (B, h, w) of a probe, for the "true" or the "predicted" class or their "margin"."""
    return probe_map(probe, score_weights(probe.logits, labels, map_class), kind)


def _without_map(mask: str, probe: Probe, batch: Batch, quantile: float, quadrant: str) -> Mask | None:
    match mask:
        case "file":
            return masks.file_mask(batch.images, batch.importance)
        case "quadrant":
            return masks.quadrant_mask(batch.images, quadrant)
        case "centre":
            return masks.centre_mask(batch.images, quantile)
        case "predicted-parts":
            if probe.part_logits is None:
                raise ValueError("Mask predicted-parts needs a part model, such as parts/downsampled.")
            size = (batch.images.shape[2], batch.images.shape[3])
            return masks.foreground_mask(predicted_parts(probe.part_logits, size))
        case "annotated-parts":
            if batch.parts is None:
                raise ValueError("Mask annotated-parts needs images with annotated parts.")
            return masks.foreground_mask(batch.parts)
    return None


def _of_map(mask: str, maps: Tensor, size: tuple[int, int], keys: Keys, quantile: float) -> Mask:
    match mask:
        case "paper":
            return masks.paper_mask(maps, size)
        case "quantile":
            return masks.quantile_mask(maps, size, keys, quantile)
        case "soft":
            return masks.soft_mask(maps, size)
        case "mean-preserving":
            return masks.mean_preserving_mask(maps, size, keys, quantile)
        case "published-code":
            return masks.published_mask(maps, size)
    raise ValueError(f"mask {mask!r} is unknown.")


def _controlled(mask: Mask, control: str, keys: Keys, middle: float) -> Mask:
    match control:
        case "none":
            return mask
        case "uniform":
            return controls.uniform(mask)
        case "shuffled":
            return controls.shuffled(mask)
        case "random":
            return controls.random(mask, keys)
        case "inverse":
            return controls.inverse(mask, middle)
    raise ValueError(f"control {control!r} is unknown.")
