"""A budget per pixel from a map, for a loop of one's own."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..batch import Batch
from ..budget import Linf
from ..budget.arithmetic import as_number
from ..contracts import Probe
from ..data.transforms import resize_maps
from ..seeding import Keys
from . import controls
from .rules import Control, Masked, MaskRule, draw_budget


def masked_budget(
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    seen: Probe | Float[Tensor, "b u v"] | None = None,
    *,
    eps: float | str,
    eps_low: float | str,
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
            and scale, such as those of ``layer_map``. Left out with a rule that looks at neither, which says so by its
            attribute ``needs_map = False``.
        eps: the radius of important pixels, in units of the images, such as 0.03 or "8/255".
        eps_low: the radius of the others, likewise.
        mask: a rule of ``importance.rules``, such as ``Quantile(share=0.25)``; by default the paper's.
        control: one of ``importance.controls``.
        keys: for masks and controls that draw at random; by default made of each image's position in the batch and of
            ``seed``.
        seed: the seed of the default keys.

    Returns:
        A budget in the norm linf, with a radius plane (B, 1, H, W). An image whose map is flat has ``eps`` everywhere.

    Raises:
        ValueError: ``seen`` is left out, and the rule draws from it.
    """
    if seen is None and getattr(mask, "needs_map", True):
        raise ValueError(
            "masked_budget has no maps: give them, such as those of layer_map, or a mask rule that needs none and says "
            "so by its attribute needs_map = False."
        )
    index = torch.arange(len(images), device=images.device)
    drawn = Keys(seed, "masked budget", index) if keys is None else keys.to(images.device)
    batch, probe = Batch(images, labels, index), seen
    if isinstance(seen, Tensor):
        maps = resize_maps(seen.detach(), (images.shape[2], images.shape[3]))
        batch = Batch(images, labels, index, importance=maps)
    if not isinstance(probe, Probe):
        probe = Probe(images, images.new_empty(len(images), 0))  # which nobody looks at
    full, low = Linf(as_number(eps)), float(as_number(eps_low))
    return draw_budget(probe, batch, drawn, full, eps_low=low, mask=mask, control=control)
