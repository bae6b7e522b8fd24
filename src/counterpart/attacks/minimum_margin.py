"""The minimum-margin attack: Auto-PGD on logit differences, one likely wrong class after the other."""

from functools import partial

from torch import Tensor

from ..budget import Budget
from ..contracts import Attacked, Classifier, NamedAttack, Probe
from ..losses.classification import margin
from ..seeding import Keys
from .auto_pgd import apgd
from .ensemble import worst_case


def minimum_margin(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    targets: int = 3,
    steps: int = 20,
) -> Attacked:
    """Find for each image the wrong class whose logit comes closest to the true one.

    Gao et al. 2022 (ICML), "Fast and reliable evaluation of adversarial robustness with minimum-margin attack", with
    sequential target selection: MM3 (3 targets, 20 steps), MM9 (9 targets, 20 steps), MM+ (9 targets, 100 steps).

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel.
        keys: source of the random starts.
        start: begin here instead, for every target.
        targets: the number of wrong classes, at most K - 1.
        steps: the steps towards each of them.

    Returns:
        For each image the first adversarial one found, else the clean image.
    """

    def each_target(classes: int) -> list[NamedAttack]:
        if not 1 <= targets < classes:
            raise ValueError(
                f"minimum_margin has 1 to {classes - 1} targets for {classes} classes, got {targets}."
            )
        return [
            NamedAttack(f"mm target {k}", partial(apgd, loss=margin, target=k, steps=steps), "mm")
            for k in range(1, targets + 1)
        ]

    return worst_case(model, images, labels, budget=budget, keys=keys, start=start, attacks=each_target)
