"""Per-image classification losses, all to be increased by an attacker."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

AttackLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), labels (B,)) -> (B,): what an attack increases."""


def cross_entropy(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Cross-entropy of each image."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Largest wrong logit minus the true one: positive exactly where the image is misclassified.

    Carlini and Wagner 2017, arXiv 1608.04644, f6 without its confidence.
    """
    true = logits.gather(1, labels[:, None])[:, 0]
    wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    return wrong - true


LOSSES: dict[str, AttackLoss] = {"cross_entropy": cross_entropy, "margin": margin}
