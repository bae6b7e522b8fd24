"""Adversarial patches: an attack on the pixels of one window, and on no others, at the worst of many places.

The patch of Brown et al. 2017, arXiv 1712.09665, made for one image. Differs from the paper in that neither one patch
fools all images nor a transformation is survived: it is the worst case that a defence against patches has to certify.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..budget import Budget, Patch
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import AttackLoss, cross_entropy, margin
from ..seeding import Keys
from .auto_pgd import apgd
from .projected_gradient import pgd
from .starts import leaf_and_logits

SEARCHES: Mapping[str, Callable[..., Attacked]] = {"pgd": pgd, "apgd": apgd}


def patch(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    loss: AttackLoss = cross_entropy,
    search: str = "pgd",
    steps: int = 20,
    restarts: int = 1,
    stride: int | None = None,
    windows: int | None = None,
) -> Attacked:
    """Perturb one window of each image so that ``model`` misclassifies it.

    Windows lie on a grid. Of each image those come first in which the gradient of the margin at the clean image is
    largest; an image leaves at the first window that fools the model.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: a ``Patch``, which says how large the window is.
        keys: source of the random starts, of each window others.
        start: a probe of the clean images, whose pass is then not made again. Images are no start here.
        loss: per-image loss to increase within a window.
        search: the attack within a window: "pgd" or "apgd".
        steps: gradient steps in each window.
        restarts: independent random starts in each window.
        stride: pixels from a window to the next; the last one ends at the border. By default half of the side, and 1
            is every window.
        windows: how many windows are tried for each image; None: all.

    Returns:
        For each image the first that fools, else that of the window with the smallest margin. ``Patch.corners`` tells
        the place. Each window costs the passes of its search and one more, and the gradient one forward and backward.

    Raises:
        ValueError: the budget is no ``Patch``.
    """
    check_unit_range(images)
    if not isinstance(budget, Patch):
        raise ValueError(
            f"patch has no {budget.norm} budget: it has Patch, such as Patch(5) for 5 x 5 pixels."
        )
    leaf, logits = leaf_and_logits(model, start if isinstance(start, Probe) else images)
    check_labels(labels, logits.shape[1])
    (gradient,) = torch.autograd.grad(margin(logits, labels).sum(), leaf)
    corners = rank_windows(budget, gradient, max(1, budget.pixels // 2) if stride is None else stride)
    perturbed, height = images.clone(), torch.full_like(images[:, 0, 0, 0], -torch.inf)
    forwards = torch.full_like(labels, 0 if isinstance(start, Probe) else 1)
    backwards = torch.ones_like(labels)
    survivors = (logits.argmax(dim=1) == labels).nonzero()[:, 0]
    attack = partial(SEARCHES[search], model, loss=loss, steps=steps, restarts=restarts)
    for number in range(min(corners.shape[1], windows or corners.shape[1])):
        if len(survivors) == 0:
            break
        clean, right = images[survivors], labels[survivors]
        attacked = attack(
            clean, right,
            budget=budget.in_window(corners[survivors, number], clean), keys=keys[survivors].fold(number),
        )  # fmt: skip
        with torch.no_grad():
            answer = model(attacked.images)
            losses = margin(answer, right)  # others are 0 in float32 where an answer is sure
        fooled = answer.argmax(dim=1) != right
        better = fooled | (losses > height[survivors])
        perturbed[survivors[better]], height[survivors[better]] = attacked.images[better], losses[better]
        forwards[survivors] += attacked.forwards + 1
        backwards[survivors] += attacked.backwards
        survivors = survivors[~fooled]
    return Attacked(perturbed, forwards, backwards)


def rank_windows(budget: Patch, gradient: Float[Tensor, "b c h w"], stride: int) -> Int[Tensor, "b n 2"]:
    """The upper left corners (y, x) of the windows of a grid, of each image those of the largest gradient first."""
    sums = budget.sums(gradient.abs().sum(dim=1))
    rows, columns = (_places(extent, stride).to(sums.device) for extent in sums.shape[1:])
    order = sums[:, rows][:, :, columns].flatten(1).argsort(dim=1, descending=True, stable=True)
    return torch.cartesian_prod(rows, columns)[order]


def _places(extent: int, stride: int) -> Tensor:
    """Every ``stride``-th of the places 0 .. extent - 1, and the last."""
    return torch.tensor(sorted({*range(0, extent, stride), extent - 1}))
