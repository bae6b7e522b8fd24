"""Adversarial training under any budget rule: AT with a constant one, PART with a rule drawn from maps."""

from functools import partial

from ..attacks.projected_gradient import pgd
from ..batch import Batch
from ..budget import Budget
from ..importance.rules import Masked
from ..protocols import Objective, Perturbed, Rule, View
from ..seeding import Keys
from .standard import cross_entropy_loss


def adversarial(
    *, budget: Budget, rule: Rule, steps: int, step_size: float | None = None, mask_from: str = "start"
) -> Objective:
    """Cross-entropy on PGD's last iterate.

    AT: Madry et al. 2018, arXiv 1706.06083. PART: Zhang et al. 2024 (ICML), algorithm 1, when the rule is
    ``importance.rules.part``. Differs from the published PART code: the map is the image's own, and is read off
    a forward pass that the attack makes anyway.

    Args:
        budget: the full budget; the random start is drawn from it. The first gradient may therefore be taken
            where the rule allows less; the first step enters what the rule allows.
        rule: draws what the attack may do, from the pass on the start.
        steps: PGD steps.
        step_size: absolute step length; default 2.5 / steps of the full budget.
        mask_from: "start": the rule sees the attack's own first pass (no extra cost); "clean": it sees a pass
            on the clean images (one more forward pass).
    """
    perturb = partial(
        _perturb, budget=budget, rule=rule, steps=steps, step_size=step_size, mask_from=mask_from
    )
    return Objective(perturb=perturb, loss=cross_entropy_loss)


def _perturb(
    view: View,
    batch: Batch,
    keys: Keys,
    *,
    budget: Budget,
    rule: Rule,
    steps: int,
    step_size: float | None,
    mask_from: str,
) -> Perturbed:
    start = budget.sample(batch.images, keys)
    probe = view.probe(batch.images if mask_from == "clean" else start)
    allowed = rule(probe, batch, keys)
    # The full budget's step whatever the rule allows, so that a control differs in its radii alone.
    length = step_size if step_size is not None else budget.size(batch.images) * (2.5 / steps)
    attacked = pgd(
        view,
        batch.images,
        batch.labels,
        budget=allowed,
        keys=keys,
        start=start if mask_from == "clean" else probe,
        steps=steps,
        step_size=length,
        last_iterate=True,
    )
    counts = {"radius": float(allowed.mean(batch.images).sum())}
    if isinstance(allowed, Masked):
        counts["flat_maps"] = float(allowed.flat.sum())
    return Perturbed(attacked.images, allowed, counts)
