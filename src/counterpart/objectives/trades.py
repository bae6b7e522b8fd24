"""TRADES: accuracy on clean images, and answers that an attack cannot move. Under a PART rule: PART-T."""

from functools import partial

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..budget import Budget
from ..contracts import Loss, Objective, Perturbed, Rule
from ..losses.adversarial import trades_terms
from ..losses.classification import kl_divergence
from .crafting import Crafting, craft


def trades(
    *,
    budget: Budget,
    rule: Rule,
    steps: int,
    step_size: float | Tensor | None = None,
    drawn_from: str = "clean",
    beta: float = 6.0,
    bn_batches: str = "separate",
    label_smoothing: float = 0.0,
) -> Objective:
    """The objective of TRADES: cross-entropy on clean images plus ``beta`` times KL(clean answer || attacked answer).

    Zhang et al. 2019, arXiv 1901.08573, equation 5; beta = 1/lambda. The attack increases the same KL from the clean
    probabilities in eval mode. Differs from the published code: those are computed once and not in every step, and
    one train-mode pass on the clean images serves both terms, so that batch norm sees the images once.

    Args:
        budget: the full budget.
        rule: draws the budget of each pixel.
        steps: the number of PGD steps, from the image plus normal noise of 0.001.
        step_size: the absolute length of a step; by default 2.5 / steps of the full radius.
        drawn_from: "clean": the rule sees the clean pass that TRADES makes anyway. "start": it sees the attack's first
            pass.
        beta: the weight of the robust term.
        bn_batches: "separate": clean and attacked images are two passes, each with its own batch-norm statistics;
            "joint": one pass on both together, as in the code of part-based models.
        label_smoothing: the share of each label that the cross-entropy spreads, as in ``standard``. The robust term
            knows no labels.
    """
    crafting = Crafting(steps, step_size, drawn_from, "noise", kl_divergence)
    perturb = partial(craft, budget=budget, rule=rule, crafting=crafting)
    loss = partial(loss_of_trades, beta=beta, bn_batches=bn_batches, label_smoothing=label_smoothing)
    return Objective(perturb=perturb, loss=loss)


def loss_of_trades(
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
    natural, robust = trades_terms(clean, attacked, batch.labels, label_smoothing)
    right = (attacked.argmax(dim=1) == batch.labels).float().mean()
    terms = {"accuracy": right, "natural_loss": natural.detach(), "robust_loss": robust.detach()}
    return Loss(natural + beta * robust, terms)


def both_logits(
    model: nn.Module, batch: Batch, perturbed: Perturbed, bn_batches: str
) -> tuple[Tensor, Tensor]:
    """The logits of clean and attacked images in float32, from two passes or from one."""
    if bn_batches == "joint":
        together = model(torch.cat([batch.images, perturbed.images])).float()
        clean, attacked = together.chunk(2)
        return clean, attacked
    return model(batch.images).float(), model(perturbed.images).float()
