"""A budget per pixel from a map, for a loop of one's own."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..batch import Batch
from ..budget import Linf
from ..contracts import Probe
from ..data.transforms import resize_maps
from ..seeding import Keys
from . import controls
from .rules import Control, Masked, MaskRule, draw_budget


def masked_budget(
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    seen: Probe | Float[Tensor, "b u v"],
    *,
    eps: float,
    eps_low: float,
    mask: MaskRule | None = None,
    control: Control = controls.none,
    keys: Keys | None = None,
    seed: int = 0,
) -> Masked:
    """A budget of PART: its radius is ``eps`` where a map is high, and ``eps_low`` elsewhere.

    Zhang et al. 2024, arXiv 2406.00685, section 3.2.

    Args:
        images: the images that the budget is for.
        labels: their true classes, which maps of a probe explain.
        seen: what the radii are drawn from. Either a forward pass, ``view.probe(images)``; or maps of any resolution
            and scale, such as those of ``layer_map``.
        eps: the radius of important pixels, in units of the images.
        eps_low: the radius of the others.
        mask: a rule of ``importance.rules``, such as ``Quantile(share=0.25)``; by default the paper's.
        control: one of ``importance.controls``.
        keys: for masks and controls that draw at random; by default made of each image's position in the batch and of
            ``seed``.
        seed: the seed of the default keys.

    Returns:
        A budget in the norm linf, with a radius plane (B, 1, H, W). An image whose map is flat has ``eps`` everywhere.
    """
    index = torch.arange(len(images), device=images.device)
    drawn = Keys(seed, "masked budget", index) if keys is None else keys.to(images.device)
    batch, probe = Batch(images, labels, index), seen
    if not isinstance(probe, Probe):
        maps = resize_maps(probe.detach(), (images.shape[2], images.shape[3]))
        batch = Batch(images, labels, index, importance=maps)
        probe = Probe(images, images.new_empty(len(images), 0))  # which nobody looks at
    return draw_budget(probe, batch, drawn, Linf(eps), eps_low=eps_low, mask=mask, control=control)
