"""The attack inside every adversarial objective: a start, the rule's budget, and PGD's last iterate within it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks.projected_gradient import pgd
from ..batch import Batch
from ..budget import Budget
from ..contracts import Perturbed, Probe, Rule, View
from ..importance.rules import Masked
from ..losses.classification import AttackLoss, kl_divergence, likely_class, margin
from ..seeding import Keys

NOISE = 0.001  # standard deviation of the start of TRADES and MART, as in the published codes


@dataclass(frozen=True)
class Crafting:
    """How the attack goes.

    Attributes:
        steps: PGD steps, towards each target.
        step_size: absolute step length; default 2.5 / steps of the full budget.
        drawn_from: "start": the rule sees the attack's own first pass; "clean": a pass on the clean images, which the
            KL loss and targets need anyway.
        start: "ball": a random point of the full budget; "noise": the image plus normal noise of 0.001.
        loss: what the attack increases; the KL loss is measured from the clean probabilities, computed once.
        targets: how many of the likeliest wrong classes to approach, each from the same start; the image that comes
            closest to its own is kept. None: no targets.
    """

    steps: int
    step_size: float | Tensor | None
    drawn_from: str
    start: str
    loss: AttackLoss
    targets: int | None = None

    @property
    def needs_clean_answers(self) -> bool:
        """Whether the clean images are passed."""
        return self.drawn_from == "clean" or self.loss is kl_divergence or self.targets is not None


def craft(
    view: View, batch: Batch, keys: Keys, *, budget: Budget, rule: Rule, crafting: Crafting
) -> Perturbed:
    """Perturb a batch for training. The clean images are passed once at most, and the graph of that pass is not kept.

    Args:
        view: what the attack searches on.
        batch: clean images.
        keys: of the random start.
        budget: the full budget, whose step is taken whatever the rule allows, so that a control differs in radii alone.
        rule: draws what the attack may do from a pass on the start or on the clean images.
        crafting: how the attack goes.
    """
    images = batch.images
    first = budget.sample(images, keys) if crafting.start == "ball" else _noisy(images, keys)
    begin: Tensor | Probe = first
    aims: list[Tensor | None] = [None]
    allowed: Budget | None = None
    if crafting.needs_clean_answers:
        clean = view.probe(images)
        aims = _aims(clean.logits.detach(), batch.labels, crafting)
        allowed = rule(clean, batch, keys, budget) if crafting.drawn_from == "clean" else None
        del clean  # frees a graph that nobody needs any more
    if allowed is None:
        probe = view.probe(first)
        allowed = rule(probe, batch, keys, budget)
        begin = Probe(probe.images, probe.logits)  # features, weights and attention served the rule alone
        del probe
    ends: list[Tensor] = []
    length: float | Tensor | None = crafting.step_size
    if length is None:
        length = budget.size(images) * (2.5 / crafting.steps)
    for aim in aims:  # in turn: as many passes as all at once, in the memory of one
        attacked = pgd(
            view,
            images,
            batch.labels,
            budget=allowed,
            keys=keys,
            start=begin,
            loss=crafting.loss,
            target=aim,
            steps=crafting.steps,
            step_size=length,
            last_iterate=True,
        )
        ends.append(attacked.images)
        begin = first  # a probe serves one backward pass
    adversarial = ends[0] if len(ends) == 1 else _closest(view, batch.labels, ends, aims)
    return perturbed_within(allowed, images, adversarial)


def perturbed_within(allowed: Budget, clean: Tensor, adversarial: Tensor) -> Perturbed:
    """The adversarial images, with the budget that the rule drew for the clean ones and the sums that are logged."""
    counts = {"radius": allowed.mean(clean).sum()}
    if isinstance(allowed, Masked):
        counts["flat_maps"] = allowed.flat.sum()
    return Perturbed(adversarial, allowed, counts)


def _aims(answers: Tensor, labels: Tensor, crafting: Crafting) -> list[Tensor | None]:
    """What the loss takes as its targets, one after the other, from the clean logits."""
    if crafting.targets is not None:
        return [likely_class(answers, labels, rank) for rank in range(1, crafting.targets + 1)]
    return [answers.softmax(dim=1) if crafting.loss is kl_divergence else None]


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
