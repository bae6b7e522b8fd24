"""Adversarial training under any budget rule: AT with a constant one, PART with a rule drawn from maps."""

from functools import partial

from ..budget import Budget
from ..losses.classification import cross_entropy
from ..protocols import Objective, Rule
from .crafting import craft
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
        craft,
        budget=budget,
        rule=rule,
        steps=steps,
        step_size=step_size,
        mask_from=mask_from,
        start="ball",
        loss=cross_entropy,
    )
    return Objective(perturb=perturb, loss=cross_entropy_loss)
