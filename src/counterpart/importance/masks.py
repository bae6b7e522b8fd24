"""From saliency maps to a radius per pixel.

Zhang et al. 2024, "Improving Accuracy-robustness Trade-off via Pixel Reweighted Adversarial Training",
section 3.2: resize the map to the image, standardise it, and call a pixel important where the result
exceeds 1. One plane per image: all channels alike.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..data.transforms import resize_maps

THRESHOLD = 1.0  # standard deviations above the image's mean


class Mask(NamedTuple):
    """Important pixels, and the images whose map could not tell any."""

    important: Bool[Tensor, "b h w"]
    flat: Bool[Tensor, " b"]


def paper_mask(maps: Float[Tensor, "b u v"], size: tuple[int, int]) -> Mask:
    """Pixels whose standardised importance exceeds 1.

    Differs from the published code: that one colours the squared map, standardises the three colour channels
    together, and gets another mask for each channel (the paper shows one).

    Args:
        maps: importance at any resolution.
        size: H, W of the images.

    Returns:
        Mask with ``important`` (B, H, W). A flat map, or one with NaN or infinity, marks nothing and is ``flat``.
    """
    resized = maps if maps.shape[1:] == size else resize_maps(maps, size)
    flattened = resized.flatten(1)
    deviation, mean = torch.std_mean(flattened, dim=1, correction=0)
    scale = flattened.abs().amax(dim=1)
    flat = ~(deviation > 1e-5 * scale)  # also true for NaN; rounding alone leaves about 1e-7
    important = flattened > (mean + THRESHOLD * deviation)[:, None]
    return Mask((important & ~flat[:, None]).view_as(resized), flat)


def radius_plane(mask: Mask, eps: float, eps_low: float) -> Float[Tensor, "b 1 h w"]:
    """``eps`` on important pixels, ``eps_low`` elsewhere; ``eps`` everywhere where the map was flat."""
    full = mask.important | mask.flat[:, None, None]
    low = torch.full(full.shape, eps_low, device=full.device)
    return torch.where(full, eps, low)[:, None]


def own_mean(plane: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The control: each image's plane replaced by its own mean.

    A smaller budget raises clean accuracy by itself; only what is left over against this control is due to
    *where* the budget lies.
    """
    return plane.mean(dim=(2, 3), keepdim=True).expand_as(plane).contiguous()
