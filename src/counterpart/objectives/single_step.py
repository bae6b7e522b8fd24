"""Adversarial training by one gradient step, N-FGSM: with the full budget, or under a rule that draws from maps."""

from functools import partial

import torch
from torch import Tensor

from ..batch import Batch
from ..budget import Linf
from ..contracts import Objective, Perturbed, Rule, View
from ..losses.classification import cross_entropy
from ..seeding import Keys
from .crafting import perturbed_within
from .standard import cross_entropy_loss


def n_fgsm(
    *,
    budget: Linf,
    rule: Rule,
    noise: float = 2.0,
    step_size: float | Tensor | None = None,
    drawn_from: str | None = None,
    label_smoothing: float = 0.0,
) -> Objective:
    """The objective of N-FGSM: cross-entropy on one long step from an image with much noise.

    de Jorge et al. 2022, arXiv 2202.01181, equation 5: the image plus uniform noise of up to ``noise`` times the
    radius, then a step of the whole radius along the sign of the gradient, and no projection. So images to train on lie
    as far as (noise + 1) radii from the clean ones; only [0, 1] ends them. It costs one pass more than training on
    clean images, where PGD with ten steps costs ten. Without noise it is FGSM, which soon fails to see stronger
    attacks ("catastrophic overfitting").

    Differs from the paper in PART, which it does not know: where the rule allows a pixel a share of the full radius,
    its noise and its step together are multiplied by that share. The map is drawn in the same pass.

    Args:
        budget: the full budget.
        rule: draws the budget of each pixel from the pass on the noisy image.
        noise: how far the noise reaches, in radii; the paper's k.
        step_size: the absolute length of the step; by default the radius.
        drawn_from: "start", the default: the rule sees the noisy image. "clean": it sees a pass on the clean one,
            which is made for it.
        label_smoothing: the share of each label that the training loss spreads over all classes. The attack spreads
            none.
    """
    perturb = partial(
        _step_once, budget=budget, rule=rule, noise=noise, step_size=step_size, drawn_from=drawn_from
    )
    return Objective(perturb=perturb, loss=partial(cross_entropy_loss, label_smoothing=label_smoothing))


def _step_once(
    view: View,
    batch: Batch,
    keys: Keys,
    *,
    budget: Linf,
    rule: Rule,
    noise: float,
    step_size: float | Tensor | None,
    drawn_from: str | None,
) -> Perturbed:
    """Images after one step from a noisy start, all of it multiplied by what the rule leaves of the radius."""
    images = batch.images
    full = budget.radius(images)
    drawn = 2 * keys.uniform(0, tuple(images.shape[1:])).to(images.dtype) - 1
    start = (images + noise * full * drawn).clamp(0, 1)
    allowed = None
    if drawn_from == "clean":
        allowed = rule(view.probe(images), batch, keys, budget)
    probe = view.probe(start)
    if allowed is None:
        allowed = rule(probe, batch, keys, budget)
    (gradient,) = torch.autograd.grad(cross_entropy(probe.logits, batch.labels).sum(), probe.images)
    length = full if step_size is None else step_size
    moved = (start + length * gradient.sign()).clamp(0, 1) - images
    radius = allowed.radius(images)
    share = torch.where(radius == full, 1.0, radius / full)  # a radius of 0 has no shares
    return perturbed_within(allowed, images, (images + share * moved).clamp(0, 1))
