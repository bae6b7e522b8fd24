"""Adversarial training under any budget rule: AT with a constant rule, PART with one that draws from maps."""

from functools import partial

from torch import Tensor

from ..budget import Budget
from ..contracts import Objective, Rule
from ..losses.classification import cross_entropy, margin
from .crafting import Crafting, craft
from .standard import cross_entropy_loss


def adversarial(
    *,
    budget: Budget,
    rule: Rule,
    steps: int,
    step_size: float | Tensor | None = None,
    targets: int | None = None,
    drawn_from: str | None = None,
    label_smoothing: float = 0.0,
) -> Objective:
    """The objective of adversarial training: cross-entropy on the last iterate of PGD, or of a minimum-margin attack.

    AT: Madry et al. 2018, arXiv 1706.06083. PART: Zhang et al. 2024 (ICML), algorithm 1, when the rule is
    ``importance.rules.draw_budget``. Differs from the published PART code: the map is the image's own, and is read off
    a forward pass that the attack makes anyway. Differs from section 3.2, which multiplies by the mask after each step:
    pixels are clamped to their radius, as in the code, unless the rule's budget multiplies (``Linf.multiplied_from``).

    Minimum margin: Gao et al. 2022 (ICML), in the form of fixed steps that the PART paper trains with: from one random
    start, PGD on the difference of two logits, towards each of the likeliest wrong classes of the clean image. Each
    image keeps the end where its target came closest to the true class, or farthest past it. Differs from the published
    code, whose difference stops counting where the target leads by 50.

    Args:
        budget: the full budget, from which the random start is drawn. The first gradient may therefore be taken
            outside of what the rule allows; the first step enters it.
        rule: draws the budget of each pixel from the pass on the start.
        steps: the number of PGD steps, towards each target.
        step_size: the absolute length of a step; by default 2.5 / steps of the full radius.
        targets: wrong classes of the minimum-margin attack, fewer than there are classes; the paper's are 3. None:
            PGD on cross-entropy.
        drawn_from: "start": the rule sees the attack's own first pass. "clean": it sees a pass on the clean images. The
            default is the one that costs nothing, which is "start" for PGD and "clean" with targets.
        label_smoothing: the share of each label that the training loss spreads over all classes. The attack spreads
            none.
    """
    if drawn_from is None:
        drawn_from = "start" if targets is None else "clean"
    loss = cross_entropy if targets is None else margin
    crafting = Crafting(steps, step_size, drawn_from, "ball", loss, targets)
    perturb = partial(craft, budget=budget, rule=rule, crafting=crafting)
    return Objective(perturb=perturb, loss=partial(cross_entropy_loss, label_smoothing=label_smoothing))
