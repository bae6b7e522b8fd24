"""Which class a targeted attack aims at."""

import torch
from torch import Tensor

from ..losses.classification import AttackLoss, kl_divergence, likely_class
from ..protocols import Classifier


def aim(
    model: Classifier, images: Tensor, labels: Tensor, target: Tensor | int | None, loss: AttackLoss
) -> tuple[Tensor | None, int]:
    """What a loss takes as its targets, and the forward passes that finding them cost.

    Args:
        model: maps images to logits.
        images: (B, C, H, W) clean.
        labels: (B,) true classes.
        target: (B,) classes; or the rank, from 1, of the wrong class by the clean image's logits; or None: untargeted.
            Whatever it is, an image counts as fooled once its answer is wrong, as in AutoAttack.
        loss: the KL divergence moves away from the clean answer, and finds that itself where it is not given.
    """
    if isinstance(target, Tensor) or (target is None and loss is not kl_divergence):
        return target, 0
    with torch.no_grad():
        logits = model(images)
    if loss is kl_divergence:
        return logits.softmax(dim=1), 1
    assert target is not None
    return likely_class(logits, labels, target), 1
