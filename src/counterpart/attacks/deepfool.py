"""DeepFool: go to the nearest of the linearised boundaries, again and again, until one is crossed.

Moosavi-Dezfooli, Fawzi and Frossard 2016, arXiv 1511.04599: algorithm 2 for l2, and its section 3.3 for l-infinity.

Differs from the paper in these ways. The radius may differ from pixel to pixel. Every step goes beyond the boundary by
the overshoot, as in the published code, where the paper does so after the last one. Images are clipped to [0, 1], while
the perturbations that add up are not. The published code adds 1e-4 to every distance, which is several per cent of a
small one; here a step is at least 1e-6 long, so that ties are left.
"""

import torch
from torch import Tensor

from ..budget import Budget
from ..contracts import Attacked, Classifier, Probe
from ..seeding import Keys
from .minimum_norm import DUAL, nearest_plane, norm_of, search_of

SHORTEST = 1e-6  # the least length of a step


def deepfool(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
) -> Attacked:
    """Find an adversarial image near each, by a few steps towards the nearest boundary.

    Args:
        model: maps images in [0, 1] to logits (B, K). Call ``model.eval()`` first.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: what is returned lies within it; it says which pixels move. l-infinity, possibly per pixel, or l2.
        keys: not used: nothing is drawn.
        start: begin here instead of at the clean image: images, or a probe of them. They may lie outside the budget;
            frozen pixels keep their clean value.
        steps: the largest number of steps; most images need three to five. Each costs a forward pass and ``candidates -
            1`` backward passes. A forward pass on the clean images comes first, and one judges the last step.
        overshoot: how far to go beyond the boundary, as a share of the way to it.
        candidates: how many classes count, likeliest first on the clean image, the true one among them.

    Returns:
        For each image the first adversarial one met, if it lies in ``budget``, else the clean image; its distance and
        the image itself in any case. Passes are counted per image.

    Raises:
        ValueError: the budget is l1, or there are fewer than two candidates.
    """
    if candidates < 2:
        raise ValueError(
            f"deepfool needs 2 candidates or more, the true class and a rival, got {candidates}."
        )
    search, logits = search_of("deepfool", ("linf", "l2"), model, images, labels, budget)
    met, norm = search.met, search.norm
    count = min(candidates, logits.shape[1]) - 1
    others = logits.scatter(1, search.labels[:, None], -torch.inf)
    rivals = others.topk(count, dim=1).indices
    current = search.begin(start)
    total = search.offset(current)
    for step in range(steps + 1):
        if len(search.index) == 0:
            break
        leaf, logits, wrong = search.ask(current)
        if step == steps or wrong.all():
            break
        gap, slope = nearest_plane(
            leaf, logits, search.labels, list(rivals.unbind(dim=1)), search.share.flatten(1), norm
        )
        met.backwards[search.index[~wrong]] += count
        steepness = norm_of(slope, DUAL[norm])
        length = gap.abs() / steepness.clamp_min(torch.finfo(slope.dtype).tiny)
        length = torch.minimum(length.clamp_min(SHORTEST), search.farthest())[:, None]
        direction = slope.sign() if norm == "linf" else slope / steepness[:, None]
        total = total + (length * direction).view_as(total)

        on = ~wrong & (steepness > 0)  # a flat model leads nowhere
        search, total, rivals = search.select(on), total[on], rivals[on]
        current = search.pixels((1 + overshoot) * total)
    return met.attacked(images, budget)
