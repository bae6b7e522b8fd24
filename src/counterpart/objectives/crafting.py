"""The attack inside every adversarial objective: a start, the rule's budget, and PGD's last iterate within it."""

import torch
from torch import Tensor

from ..attacks.projected_gradient import pgd
from ..batch import Batch
from ..budget import Budget
from ..importance.rules import Masked
from ..losses.classification import AttackLoss, kl_divergence, likely_class, margin
from ..protocols import Perturbed, Probe, Rule, View
from ..seeding import Keys

NOISE = 0.001  # standard deviation of the start of TRADES and MART, as in the published codes


def craft(
    view: View,
    batch: Batch,
    keys: Keys,
    *,
    budget: Budget,
    rule: Rule,
    steps: int,
    step_size: float | None,
    drawn_from: str,
    start: str,
    loss: AttackLoss,
    targets: int | None = None,
) -> Perturbed:
    """Perturb a batch for training.

    The clean images go through the model at most once, and the graph of that pass is freed before the attack begins.

    Args:
        view: what the attack searches on.
        batch: clean images.
        keys: the randomness of the start.
        budget: the full budget. The default step size comes from it and not from the masked one, so that a mask and
            its control differ in radii alone.
        rule: draws the budget of each pixel, from a pass on the start or on the clean images.
        steps: the number of PGD steps, towards each target.
        step_size: the length of a step, in the unit of the radius; by default 2.5 / steps of the full radius.
        drawn_from: "start": the rule sees the attack's own first pass. "clean": it sees a pass on the clean images,
            which the KL loss and targets need anyway.
        start: "ball": a random point of the full budget. "noise": the image plus normal noise with a standard
            deviation of 0.001.
        loss: what the attack increases. The KL loss is measured from the clean probabilities, which are computed once.
        targets: how many of the likeliest wrong classes to approach, each from the same start. Of the resulting images
            the one that comes closest to its target is returned. None: no targets.
    """
    images = batch.images
    first = budget.sample(images, keys) if start == "ball" else _noisy(images, keys)
    begin: Tensor | Probe = first
    aims: list[Tensor | None] = [None]
    allowed: Budget | None = None
    if drawn_from == "clean" or loss is kl_divergence or targets is not None:
        clean = view.probe(images)
        aims = _aims(clean.logits.detach(), batch.labels, loss, targets)
        allowed = rule(clean, batch, keys, budget) if drawn_from == "clean" else None
        del clean  # frees a graph that nobody needs any more
    if allowed is None:
        probe = view.probe(first)
        allowed = rule(probe, batch, keys, budget)
        begin = Probe(probe.images, probe.logits)  # features, weights and attention served the rule alone
        del probe
    ends: list[Tensor] = []
    for aim in aims:  # one after another: as many passes as all at once, in the memory of one
        attacked = pgd(
            view,
            images,
            batch.labels,
            budget=allowed,
            keys=keys,
            start=begin,
            loss=loss,
            target=aim,
            steps=steps,
            step_size=step_size if step_size is not None else budget.size(images) * (2.5 / steps),
            last_iterate=True,
        )
        ends.append(attacked.images)
        begin = first  # a probe serves one backward pass
    perturbed = ends[0] if len(ends) == 1 else _closest(view, batch.labels, ends, aims)
    counts = {"radius": float(allowed.mean(images).sum())}
    if isinstance(allowed, Masked):
        counts["flat_maps"] = float(allowed.flat.sum())
    return Perturbed(perturbed, allowed, counts)


def _aims(answers: Tensor, labels: Tensor, loss: AttackLoss, targets: int | None) -> list[Tensor | None]:
    """The targets that ``loss`` takes, one after the other, read off the clean logits."""
    if targets is not None:
        return [likely_class(answers, labels, rank) for rank in range(1, targets + 1)]
    return [answers.softmax(dim=1) if loss is kl_divergence else None]


@torch.no_grad()
def _closest(view: View, labels: Tensor, ends: list[Tensor], aims: list[Tensor | None]) -> Tensor:
    """Choose for each image the end whose target class came closest to the true class, or went farthest past it."""
    margins = [margin(view(end), labels, aim) for end, aim in zip(ends, aims, strict=True)]
    return torch.stack(ends)[
        torch.stack(margins).argmax(dim=0), torch.arange(len(labels), device=labels.device)
    ]


def _noisy(images: Tensor, keys: Keys) -> Tensor:
    """Images plus small normal noise, within [0, 1]. Differs from the published codes, which leave that range here."""
    noise = keys.fold("noise").normal(0, tuple(images.shape[1:]))
    return (images + NOISE * noise).clamp(0, 1)
