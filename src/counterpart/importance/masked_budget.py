"""A budget per pixel from a map, for a loop of one's own."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..batch import Batch
from ..data.transforms import resize_maps
from ..protocols import Probe
from ..seeding import Keys
from .rules import Masked, part


def masked_budget(
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    seen: Probe | Float[Tensor, "b u v"],
    *,
    eps: float,
    eps_low: float,
    keys: Keys | None = None,
    seed: int = 0,
    **options: Any,
) -> Masked:
    """A budget of PART: its radius is ``eps`` where a map is high, and ``eps_low`` elsewhere.

    Zhang et al. 2024, arXiv 2406.00685, section 3.2.

    Args:
        images: that the budget is for.
        labels: their true classes, which maps of a probe explain.
        seen: what the radii are drawn from: a forward pass, ``view.probe(images)``; or maps of any resolution and
            scale, such as those of ``layer_map``.
        eps: radius of important pixels, in units of the images.
        eps_low: radius of the others.
        keys: for masks and controls that draw at random. Default: each image's position in the batch, and ``seed``.
        seed: of these.
        options: ``mask``, ``control``, ``quantile`` and others of ``importance.rules.part``.

    Returns:
        A budget in the norm linf, with a radius plane (B, 1, H, W). An image whose map is flat has ``eps`` everywhere.
    """
    index = torch.arange(len(images), device=images.device)
    drawn = Keys(seed, "masked budget", index) if keys is None else keys.to(images.device)
    if isinstance(seen, Probe):
        return part(seen, Batch(images, labels, index), drawn, eps=eps, eps_low=eps_low, **options)
    maps = resize_maps(seen.detach(), (images.shape[2], images.shape[3]))
    unasked = Probe(images, torch.empty(len(images), 0, device=images.device))
    batch = Batch(images, labels, index, importance=maps)
    return part(unasked, batch, drawn, eps=eps, eps_low=eps_low, **options)
