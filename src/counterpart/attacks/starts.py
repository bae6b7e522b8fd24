"""The start of an attack: its first images, what is known of them, and the class that it aims at."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels
from ..contracts import Classifier, Probe
from ..losses.classification import AttackLoss, kl_divergence, likely_class


def images_of(start: Tensor | Probe) -> Tensor:
    """The images of a start, without their graph."""
    return start.images.detach() if isinstance(start, Probe) else start.detach()


def opening(images: Tensor, budget: Budget, start: Tensor | Probe | None) -> Tensor:
    """The images that are judged first: a copy of the clean images, or ``start``, moved into the budget."""
    return images.clone() if start is None else budget.project(images_of(start), images)


def ask(model: Classifier, images: Tensor, start: Tensor | Probe | None) -> tuple[Tensor, Tensor]:
    """The logits (B, K) of ``images``, and the passes (B,) that they cost: none where a probe has them."""
    if not isinstance(start, Probe):
        return model(images), torch.ones(len(images), dtype=torch.int64, device=images.device)
    unknown = (images != start.images).flatten(1).any(dim=1)
    logits = start.logits.detach().clone()
    if unknown.any():
        logits[unknown] = model(images[unknown])
    return logits, unknown.long()


def check_once(labels: Tensor) -> Callable[[Tensor], None]:
    """A function that refuses the labels if they do not fit the first logits (B, K) that it meets.

    It looks at no others, because the host would wait for the device at each step of an attack.
    """
    first = iter([True])

    def check(logits: Tensor) -> None:
        if next(first, False):
            check_labels(labels, logits.shape[1])

    return check


def leaf_and_logits(model: Classifier, images: Tensor | Probe) -> tuple[Tensor, Tensor]:
    """Make ``images`` a leaf that gradients reach, with its logits (B, K) attached; a probe has both already."""
    if isinstance(images, Probe):
        return images.images, images.logits
    leaf = images.detach().requires_grad_()
    return leaf, model(leaf)


def aim(
    model: Classifier, images: Tensor, labels: Tensor, target: Tensor | int | None, loss: AttackLoss
) -> tuple[Tensor | None, int]:
    """The targets of a loss, and the forward passes that it takes to choose them.

    Args:
        model: maps images to logits.
        images: (B, C, H, W) clean images.
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
