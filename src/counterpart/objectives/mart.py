"""MART: adversarial training that weighs images by how wrong the clean answer is. Under a PART rule: PART-M."""

from functools import partial

from torch import Tensor, nn

from ..batch import Batch
from ..budget import Budget
from ..contracts import Loss, Objective, Perturbed, Rule
from ..losses.adversarial import mart_terms
from ..losses.classification import cross_entropy
from .crafting import Crafting, craft
from .trades import both_logits


def mart(
    *,
    budget: Budget,
    rule: Rule,
    steps: int,
    step_size: float | Tensor | None = None,
    drawn_from: str = "start",
    beta: float = 6.0,
    bn_batches: str = "separate",
    label_smoothing: float = 0.0,
) -> Objective:
    """The objective of MART: boosted cross-entropy on attacked images, plus ``beta`` times a weighted KL divergence.

    The weight is the error of the clean answer.

    Wang et al. 2020 (ICLR), "Improving adversarial robustness requires revisiting misclassified examples", equations 9
    to 11. Its published code takes beta 5. The PART paper, and so the default here, takes 6.

    Args:
        budget: the full budget.
        rule: draws the budget of each pixel.
        steps: the number of PGD steps on cross-entropy, from the image plus normal noise of 0.001.
        step_size: the absolute length of a step; by default 2.5 / steps of the full radius.
        drawn_from: "start": the rule sees the attack's first pass. "clean": it sees one more pass on the clean images.
        beta: the weight of the KL term.
        bn_batches: "separate" or "joint", as for ``trades``.
        label_smoothing: the share of each label that the cross-entropy within the boosted one spreads, as in
            ``standard``. Nothing else is smoothed, because neither -log(1 - the strongest wrong probability) nor the
            weight of the KL term has a distribution of labels.
    """
    crafting = Crafting(steps, step_size, drawn_from, "noise", cross_entropy)
    perturb = partial(craft, budget=budget, rule=rule, crafting=crafting)
    loss = partial(loss_of_mart, beta=beta, bn_batches=bn_batches, label_smoothing=label_smoothing)
    return Objective(perturb=perturb, loss=loss)


def loss_of_mart(
    model: nn.Module,
    batch: Batch,
    perturbed: Perturbed,
    *,
    beta: float,
    bn_batches: str,
    label_smoothing: float = 0.0,
) -> Loss:
    """The mean over the batch. The gradient goes through both answers, and ``accuracy`` is that of attacked images."""
    clean, attacked = both_logits(model, batch, perturbed, bn_batches)
    boosted, robust = mart_terms(clean, attacked, batch.labels, label_smoothing)
    right = (attacked.argmax(dim=1) == batch.labels).float().mean()
    terms = {"accuracy": right, "natural_loss": boosted.detach(), "robust_loss": robust.detach()}
    return Loss(boosted + beta * robust, terms)
