"""DDN: decoupled direction and norm. The gradient turns the perturbation; whether it fools sets its length.

Rony et al. 2019, arXiv 1811.09600, algorithm 1.

Differs from the paper in these ways. Pixels may be frozen. Images are not rounded to 256 levels. The last iterate is
judged, too. Where the gradient is zero the direction is drawn at random, as in the published code, but for each image
by its own key.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..budget import Budget
from ..contracts import Attacked, Classifier, Probe
from ..seeding import Keys
from .minimum_norm import search_of, unit

LAST_RATE = 0.01  # of the step, which begins at 1


def ddn(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    steps: int = 100,
    gamma: float = 0.05,
    initial_norm: float = 1.0,
) -> Attacked:
    """Find the nearest image that ``model`` misclassifies, by Euclidean length.

    Args:
        model: maps images in [0, 1] to logits (B, K). Call ``model.eval()`` first.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: what is returned lies within it; it says which pixels move. l2 only.
        keys: source of the directions where a model is flat.
        start: begin here instead of at the clean image: images, or a probe of them. They may lie outside the budget;
            frozen pixels keep their clean value.
        steps: each costs one forward and one backward pass. A forward pass on the clean images comes first, and one
            judges the last step.
        gamma: the share by which the length shrinks after a success and grows after a failure.
        initial_norm: the first length, in units of [0, 1] pixels.

    Returns:
        For each image the nearest adversarial one met, if it lies in ``budget``, else the clean image; its distance
        and the image itself in any case. Passes are counted per image.

    Raises:
        ValueError: the budget is not l2.
    """
    search, _ = search_of("ddn", ("l2",), model, images, labels, budget)
    draws, farthest = keys[search.index], search.farthest()
    length = torch.full_like(farthest, initial_norm)
    current = search.begin(start)
    for step in range(steps if len(search.index) else 0):
        leaf, logits, wrong = search.ask(current)
        slope = search.slope(F.cross_entropy(logits, search.labels, reduction="none"), leaf)
        direction = unit(slope)
        flat = (slope == 0).flatten(1).all(dim=1).view(-1, 1, 1, 1)
        if flat.any():
            noise = draws.normal(step, tuple(slope.shape[1:])).to(slope) * search.share
            direction = torch.where(flat, unit(noise), direction)
        rate = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / steps)) / 2
        length = torch.minimum(length * torch.where(wrong, 1 - gamma, 1 + gamma), farthest)
        turned = unit(search.offset(current) + rate * direction)
        current = search.pixels(length.view(-1, 1, 1, 1) * turned)
    search.judge(current)
    return search.met.attacked(images, budget)
