"""Attack a model with images that fool another model."""

import torch
from torch import Tensor

from ..budget import Budget
from ..contracts import Attack, Attacked, Classifier, Probe
from ..seeding import Keys
from .starts import images_of


def transfer(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    surrogate: Classifier,
    attack: Attack,
) -> Attacked:
    """Run ``attack`` on ``surrogate``, and hand over its images without asking ``model``.

    Where it fools more than the attacks that see ``model``, their gradients are masked.

    Args:
        model: the attacked model. It is not asked: whoever judges the images will see what they do to it.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations.
        keys: source of the attack's draws.
        start: where the attack begins. Of a probe only the images count: its answers are those of ``model``.
        surrogate: maps images in [0, 1] to logits (B, K). In eval mode, likewise.
        attack: its options bound, such as ``functools.partial(pgd, steps=100)``.

    Returns:
        The attack's images, in ``budget``. Passes count those on ``model``: 0.
    """
    begin = images_of(start) if isinstance(start, Probe) else start
    attacked = attack(surrogate, images, labels, budget=budget, keys=keys, start=begin)
    none = torch.zeros_like(attacked.forwards)
    return Attacked(attacked.images, forwards=none, backwards=none.clone())
