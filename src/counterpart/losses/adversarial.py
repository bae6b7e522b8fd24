"""Training losses of two answers, to the clean and to the attacked images: TRADES and MART.

Pure functions of logits, for a loop of one's own; ``objectives.trades`` and ``objectives.mart`` are made of them.
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def trades_loss(
    clean: Float[Tensor, "b k"],
    attacked: Float[Tensor, "b k"],
    labels: Int[Tensor, " b"],
    *,
    beta: float = 6.0,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The cross-entropy of clean answers plus ``beta`` times KL(clean answer || attacked answer), mean over the batch.

    Zhang et al. 2019, arXiv 1901.08573, equation 5; beta = 1/lambda. The attack that goes with it raises the same KL:
    ``pgd(..., loss="kl_divergence", last_iterate=True)``.

    Args:
        clean: logits of the clean images, with their graph.
        attacked: logits of the attacked images, with their graph.
        labels: true classes.
        beta: the weight of the robust term.
        label_smoothing: the share of each label that the cross-entropy spreads over all classes.
    """
    natural, robust = trades_terms(clean, attacked, labels, label_smoothing)
    return natural + beta * robust


def mart_loss(
    clean: Float[Tensor, "b k"],
    attacked: Float[Tensor, "b k"],
    labels: Int[Tensor, " b"],
    *,
    beta: float = 6.0,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Boosted cross-entropy of the attacked answers plus ``beta`` times KL, weighted by the clean answer's error.

    Wang et al. 2020 (ICLR), "Improving adversarial robustness requires revisiting misclassified examples", equations 9
    to 11; mean over the batch. The attack that goes with it is ``pgd(..., last_iterate=True)``.

    Args:
        clean: logits of the clean images, with their graph.
        attacked: logits of the attacked images, with their graph.
        labels: true classes.
        beta: the weight of the KL term; the published code has 5.
        label_smoothing: the share of each label that the cross-entropy within the boosted one spreads over all classes.
    """
    boosted, robust = mart_terms(clean, attacked, labels, label_smoothing)
    return boosted + beta * robust


def trades_terms(
    clean: Tensor, attacked: Tensor, labels: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The natural and the robust term of ``trades_loss``, before ``beta``."""
    natural = F.cross_entropy(clean, labels, label_smoothing=label_smoothing)
    return natural, kl_between(clean, attacked.log_softmax(dim=1)).mean()


def mart_terms(
    clean: Tensor, attacked: Tensor, labels: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """The boosted cross-entropy and the weighted KL of ``mart_loss``, before ``beta``."""
    before, after, true = clean.softmax(dim=1), attacked.softmax(dim=1), labels[:, None]
    strongest = after.scatter(1, true, -1.0).amax(dim=1)  # the likeliest wrong class
    # The small numbers are the published code's: probabilities of 0 and 1 stay finite.
    boosted = F.cross_entropy(attacked, labels, label_smoothing=label_smoothing)
    boosted = boosted - (1.0001 - strongest + 1e-12).log().mean()
    divergence = kl_between(clean, (after + 1e-12).log())
    weight = 1.0000001 - before.gather(1, true)[:, 0]
    return boosted, (divergence * weight).mean()


def kl_between(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(softmax(clean) || exp(attacked)) of logits and log-probabilities, (B,), with gradients to both.

    Computed in logarithms: a clean probability that is 0 in float32 has no gradient, but its logit has.
    """
    return F.kl_div(attacked, clean.log_softmax(dim=1), reduction="none", log_target=True).sum(dim=1)
