"""FMN: fast minimum-norm attack. Gradient steps on the margin, within a ball that closes in on the boundary.

Pintor, Roli, Brendel and Biggio 2021, arXiv 2102.12827, algorithm 1.

Differs from the paper in these ways. The radius may differ from pixel to pixel. l0 is left out. For l1 and l2 the
projection is the exact one onto ball and box together, where the paper projects onto the ball and clips afterwards. A
given start is taken as it is, without the paper's bisection between it and the clean image. Until the
first success the ball grows by gamma at least: where it ends at the linearised boundary, as in the paper, rounding
alone decides whether a linear model is ever fooled. The last iterate is judged, too.
"""

import math

import torch
from torch import Tensor

from ..budget import NORMS, Budget
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import margin
from ..seeding import Keys
from .minimum_norm import DUAL, Search, norm_of, search_of, unit

LAST_STEP = 0.01  # of the first step's length
LAST_GAMMA = 0.001


def fmn(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    steps: int = 100,
    step_size: float = 1.0,
    gamma: float = 0.05,
) -> Attacked:
    """Find the nearest image that ``model`` misclassifies, in any norm.

    Args:
        model: maps images in [0, 1] to logits (B, K). Call ``model.eval()`` first.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: what is returned lies within it; it says which pixels move, and how far in relation to each other.
        keys: not used: nothing is drawn.
        start: begin here instead of at the clean image: images, or a probe of them. They may lie outside the budget;
            frozen pixels keep their clean value.
        steps: each costs one forward and one backward pass. A forward pass on the clean images comes first, and one
            judges the last step.
        step_size: Euclidean length of the first step, in units of [0, 1] pixels; it falls to a hundredth of that along
            a cosine. The published code takes 10 for l-infinity.
        gamma: the share by which the ball shrinks after a success and grows after a failure, at first; it falls to
            0.001 along a cosine.

    Returns:
        For each image the nearest adversarial one met, if it lies in ``budget``, else the clean image; its distance
        and the image itself in any case. Passes are counted per image.
    """
    search, _ = search_of("fmn", ("linf", "l2", "l1"), model, images, labels, budget)
    farthest = search.farthest()
    radius = torch.full_like(farthest, torch.inf)
    current = search.begin(start)
    for step in range(steps if len(search.index) else 0):
        leaf, logits, wrong = search.ask(current)
        gap = margin(logits, search.labels)
        slope = search.slope(gap, leaf)
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        length = step_size * (LAST_STEP + (1 - LAST_STEP) * cosine)
        change = LAST_GAMMA + (gamma - LAST_GAMMA) * cosine

        offset, nearest = search.offset(current), search.met.distances[search.index]
        steepness = norm_of(slope.flatten(1), DUAL[search.norm])
        to_plane = gap.detach().abs() / steepness.clamp_min(torch.finfo(slope.dtype).tiny)
        # Until a success, the ball reaches as far as the linearised boundary.
        here = search.length(offset)
        first = torch.maximum(here + to_plane, here * (1 + change))
        wider = torch.where(nearest.isfinite(), radius * (1 + change), first)
        radius = torch.where(wrong, torch.minimum(radius * (1 - change), nearest), wider)
        radius = torch.minimum(radius, farthest)
        current = _within(search, offset + length * unit(slope), radius)
    search.judge(current)
    return search.met.attacked(images, budget)


def _within(search: Search, offset: Tensor, radius: Tensor) -> Tensor:
    """The nearest images to these offsets (R, C, H, W) whose length is at most ``radius`` (R,)."""
    if search.norm == "linf":
        bound = radius.view(-1, 1, 1, 1)
        return search.pixels(offset.clamp(-bound, bound))
    projected: Tensor = NORMS[search.norm](radius).project(search.clean + offset * search.share, search.clean)
    return projected
