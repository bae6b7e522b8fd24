"""The attack inside every adversarial objective: a start, the rule's budget, and PGD's last iterate within it."""

from torch import Tensor

from ..attacks.projected_gradient import pgd
from ..batch import Batch
from ..budget import Budget
from ..importance.rules import Masked
from ..losses.classification import AttackLoss, kl_divergence
from ..protocols import Perturbed, Rule, View
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
    mask_from: str,
    start: str,
    loss: AttackLoss,
) -> Perturbed:
    """Perturb a batch for training.

    Args:
        view: what the attack searches on.
        batch: clean images.
        keys: of the random start.
        budget: the full budget, whose step is taken whatever the rule allows, so that a control differs in radii alone.
        rule: draws what the attack may do from a pass on the start or on the clean images.
        steps: PGD steps.
        step_size: absolute step length; default 2.5 / steps of the full budget.
        mask_from: "start": the rule sees the attack's own first pass; "clean": a pass on the clean images, which the
            KL loss makes anyway.
        start: "ball": a random point of the full budget; "noise": the image plus normal noise of 0.001.
        loss: what the attack increases; the KL loss is measured from the clean probabilities, computed once.
    """
    images = batch.images
    clean = view.probe(images) if mask_from == "clean" or loss is kl_divergence else None
    first = budget.sample(images, keys) if start == "ball" else _noisy(images, keys)
    probe = clean if mask_from == "clean" and clean is not None else view.probe(first)
    allowed = rule(probe, batch, keys)
    length = step_size if step_size is not None else budget.size(images) * (2.5 / steps)
    probabilities = (
        clean.logits.detach().softmax(dim=1) if clean is not None and loss is kl_divergence else None
    )
    attacked = pgd(
        view,
        images,
        batch.labels,
        budget=allowed,
        keys=keys,
        start=first if probe is clean else probe,
        loss=loss,
        target=probabilities,
        steps=steps,
        step_size=length,
        last_iterate=True,
    )
    counts = {"radius": float(allowed.mean(images).sum())}
    if isinstance(allowed, Masked):
        counts["flat_maps"] = float(allowed.flat.sum())
    return Perturbed(attacked.images, allowed, counts)


def _noisy(images: Tensor, keys: Keys) -> Tensor:
    """Differs from the published codes, which leave [0, 1] here."""
    noise = keys.fold("noise").normal(0, tuple(images.shape[1:]))
    return (images + NOISE * noise).clamp(0, 1)
