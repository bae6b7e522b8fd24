"""The attack of Carlini and Wagner for l2: Adam on squared distance and margin, weighed by bisection.

Carlini and Wagner 2017, arXiv 1608.04644, section VI-A with the objective f6: minimise
``||x' - x||^2 + c * max(0, true logit - largest other + confidence)`` over w, where ``x' = (tanh(w) + 1) / 2``.

Differs from the paper in these ways. Pixels may be frozen. 1,000 steps are the default, of 10,000. No search ends
early: the published code ends one where the loss of the whole batch has stalled, so that images depend on each other.
The last search does not repeat the largest weight, which the published code does from ten searches on.
"""

import torch
from torch import Tensor

from ..budget import Budget
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import margin
from ..seeding import Keys
from .minimum_norm import search_of

INSIDE = 1 - 1e-6  # the part of [-1, 1] in which tanh still has a slope
DECAY, SQUARE_DECAY, SMALL = 0.9, 0.999, 1e-8  # the constants of Adam


def carlini_wagner(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    search_steps: int = 9,
    steps: int = 1000,
    learning_rate: float = 0.01,
    initial_weight: float = 1e-3,
    confidence: float = 0.0,
) -> Attacked:
    """Find the nearest image that ``model`` misclassifies, by Euclidean length.

    Args:
        model: maps images in [0, 1] to logits (B, K). Call ``model.eval()`` first.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: what is returned lies within it; it says which pixels move. l2 only.
        keys: not used: nothing is drawn.
        start: every search begins here instead of at the clean image: images, or a probe of them. They may lie outside
            the budget; frozen pixels keep their clean value.
        search_steps: how many weights of the margin are tried: ten times as much until one succeeds, then halfway
            between the largest that failed and the smallest that succeeded.
        steps: the steps of Adam for each weight; each costs one forward and one backward pass. A forward pass on the
            clean images comes first.
        learning_rate: the learning rate of Adam, in units of w. Pixels at 0 or 1 begin far out, where tanh is flat: few
            steps need a higher rate, such as 0.1 for 200.
        initial_weight: the first weight c.
        confidence: how far a wrong logit must exceed the true one; what does not reach that counts as no success.

    Returns:
        For each image the nearest adversarial one met, if it lies in ``budget``, else the clean image; its distance
        and the image itself in any case. Passes are counted per image.

    Raises:
        ValueError: the budget is not l2.
    """
    search, _ = search_of("carlini_wagner", ("l2",), model, images, labels, budget)
    clean, movable = search.clean, search.share > 0
    first = ((2 * search.begin(start) - 1) * INSIDE).atanh()
    weight = torch.full_like(search.farthest(), initial_weight)
    # The largest weight that failed, and the smallest that fooled the model.
    failed, fooled = torch.zeros_like(weight), torch.full_like(weight, torch.inf)
    for _ in range(search_steps if len(search.index) else 0):
        w, success = first.clone(), torch.zeros_like(search.labels, dtype=torch.bool)
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        for step in range(1, steps + 1):
            w.requires_grad_()
            pixels = torch.where(movable, (w.tanh() + 1) / 2, clean)
            logits = model(pixels)
            gap = margin(logits, search.labels)
            loss = (pixels - clean).square().flatten(1).sum(dim=1) + weight * (confidence - gap).clamp_min(0)
            (gradient,) = torch.autograd.grad(loss.sum(), w)
            success |= search.meet(pixels.detach(), logits, confidence)
            search.met.backwards[search.index] += 1

            mean.lerp_(gradient, 1 - DECAY)
            square.lerp_(gradient.square(), 1 - SQUARE_DECAY)
            size = (square / (1 - SQUARE_DECAY**step)).sqrt() + SMALL
            w = w.detach() - learning_rate / (1 - DECAY**step) * mean / size
        failed = torch.where(success, failed, weight)
        fooled = torch.where(success, weight, fooled)
        weight = torch.where(fooled.isfinite(), (failed + fooled) / 2, 10 * weight)
    return search.met.attacked(images, budget)
