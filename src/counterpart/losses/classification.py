"""Per-image classification losses, all to be increased by an attacker.

Each takes ``targets`` too. Without them it is untargeted: it grows as the true class loses. With them, (B,) classes,
it grows as the image approaches its target class. (``kl_divergence`` moves away from a clean answer instead.)
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

FLOOR = 1e-12  # added to DLR's denominator, as in the published code


@runtime_checkable
class AttackLoss(Protocol):
    """A function (logits (B, K), labels (B,), targets (B,) or None) -> (B,) that an attack increases."""

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """The loss of each image."""
        ...


def cross_entropy(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], targets: Int[Tensor, " b"] | None = None
) -> Float[Tensor, " b"]:
    """The cross-entropy of the true class; with targets, the log-probability of the target."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def margin(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], targets: Int[Tensor, " b"] | None = None
) -> Float[Tensor, " b"]:
    """The largest wrong logit minus the true one, which is positive exactly where the image is misclassified.

    With targets, the target's logit minus the true one. Carlini and Wagner 2017, arXiv 1608.04644, f6 without its
    confidence; Gao et al. 2022 (ICML), "Fast and reliable evaluation of adversarial robustness with minimum-margin
    attack", with targets.
    """
    true = _pick(logits, labels)
    if targets is not None:
        return _pick(logits, targets) - true
    return logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1) - true


def dlr(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], targets: Int[Tensor, " b"] | None = None
) -> Float[Tensor, " b"]:
    """The difference of logits ratio: the margin, divided by how far the largest logits lie apart.

    Croce and Hein 2020, arXiv 2003.01690, equations 6 and 7. Unlike cross-entropy it does not change when logits are
    scaled. Needs 3 classes, with targets 4: ``margin`` is its form for fewer.
    """
    needed = 3 if targets is None else 4
    if logits.shape[1] < needed:
        raise ValueError(
            f"the {'' if targets is None else 'targeted '}DLR loss needs {needed} classes, got {logits.shape[1]}: "
            "use the margin loss."
        )
    largest = logits.topk(needed, dim=1).values
    if targets is None:
        return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + FLOOR)
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    return margin(logits, labels, targets) / (spread + FLOOR)


def kl_divergence(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], targets: Float[Tensor, "b k"] | None = None
) -> Float[Tensor, " b"]:
    """The divergence of the answer from the clean image's probabilities, ``targets``: KL(targets || softmax(logits)).

    Zhang et al. 2019 (TRADES), arXiv 1901.08573, equation 5. Labels play no part.
    """
    if targets is None:
        raise ValueError("the KL loss needs targets: the probabilities (B, K) of the clean images.")
    return F.kl_div(logits.log_softmax(dim=1), targets, reduction="none").sum(dim=1)


def likely_class(logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], rank: int) -> Int[Tensor, " b"]:
    """The wrong class with the ``rank``-th largest logit, counted from 1: how attacks choose their targets."""
    wrong = logits.shape[1] - 1
    if not 1 <= rank <= wrong:
        raise ValueError(f"target {rank} does not exist: {wrong + 1} classes have targets 1 to {wrong}.")
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(rank, dim=1).indices[:, rank - 1]


def _pick(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


LOSSES: dict[str, AttackLoss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "kl_divergence": kl_divergence,
}
