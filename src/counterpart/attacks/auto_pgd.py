"""Auto-PGD: projected gradient ascent with momentum that chooses its step lengths itself.

Croce and Hein 2020, arXiv 2003.01690, algorithm 1; for L1 Croce and Hein 2021, arXiv 2103.01208. Differs from the
published code in five ways, none of which weakens it. Steps are shares of each pixel's radius. Fooled images leave the
batch at once. A start is uniform in the ball. Where answers are random (``eot``), an image counts as fooled when the
mean answer is wrong. In L1 no rounding counts as moved, and the first steps move a fifth of the values, as the paper
has it, also where the search begins in larger balls: the published code takes the number that the start moved there,
and what rounding adds to it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..budget import RELATIVE_TOLERANCE, Budget
from ..checks import check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import AttackLoss, cross_entropy
from ..seeding import Keys
from .rows import split_rows
from .starts import aim, check_once, images_of

MOMENTUM = 0.75  # the share of the new direction in a step, beside the last movement
LARGE_RADII = (3, 2)  # L1: the first balls, in multiples of the radius, with 30 % of the steps in each
# L1: the next steps move so many times fewer values than were found useful; steps are shortened by it as well.
SPARSER = 1.5
FIRST_SHARE = 0.2  # L1: the share of the values that the first steps move


def apgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    loss: AttackLoss = cross_entropy,
    target: Tensor | int | None = None,
    steps: int = 100,
    restarts: int = 1,
    eot: int = 1,
    rho: float = 0.75,
    to_the_end: bool = False,
) -> Attacked:
    """Perturb ``images`` within ``budget`` so that ``model`` misclassifies them.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel. In L1 the search begins in balls of three
            and two times the radius, as AutoAttack's does.
        keys: source of the random starts.
        start: begin the first restart here instead.
        loss: per-image loss to increase.
        target: (B,) classes to move towards; or the rank, from 1, of the wrong class that the clean image is most
            like; None: untargeted. Any wrong answer counts as fooled.
        steps: gradient steps; each costs ``eot`` forward and backward passes, and the start one more (in L1 the start
            in each of the balls).
        restarts: independent random starts; only images that are not yet fooled meet the next.
        eot: passes that each gradient is averaged over, for models whose answers are random.
        rho: a step is halved where the loss rose in no more than this share of the steps since the last check.
        to_the_end: take every step, also where the answer is wrong already, which a random answer may be by chance.

    Returns:
        For each image the first adversarial one met, else the one with the largest loss; with ``to_the_end`` always
        that. Always in ``budget``.
    """
    check_unit_range(images)
    targets, spent = aim(model, images, labels, target, loss)
    perturbed, fooled = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    height = torch.full_like(images[:, 0, 0, 0], -torch.inf)  # the loss of each image of ``perturbed``
    forwards, backwards = torch.full_like(labels, spent), torch.zeros_like(labels)
    large = 3 * steps // 10 if budget.norm == "l1" else 0
    stages = [(factor, large) for factor in LARGE_RADII if large] + [(1, steps - large * len(LARGE_RADII))]
    for restart in range(restarts):
        survivors = (~fooled).nonzero()[:, 0]
        if len(survivors) == 0:
            break
        clean, within = images[survivors], budget.select(survivors)
        point = images_of(start)[survivors] if start is not None and restart == 0 else None
        for number, (factor, length) in enumerate(stages):
            stage = within if factor == 1 else replace(within, eps=within.eps * factor)
            if point is None:
                point = _random_start(stage, clean, keys[survivors].fold(restart))
            end = _ascend(
                partial(_pass, model, loss, eot, check_once(labels)),
                stage,
                clean,
                labels[survivors],
                None if targets is None else targets[survivors],
                start=stage.project(point, clean),
                steps=length,
                rho=rho,
                opening=number == 0,
                judged=factor == 1 and not to_the_end,  # in a larger ball no image counts as fooled
            )
            point = end.images
            forwards[survivors] += eot * end.forwards
            backwards[survivors] += eot * end.backwards
        better = end.loss > height[survivors]
        perturbed[survivors[better]], height[survivors[better]] = end.images[better], end.loss[better]
        fooled[survivors] = end.loss == torch.inf
    return Attacked(perturbed, forwards, backwards)


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step length is reconsidered: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    gap = max(int(0.22 * steps), 1)
    checks = [gap]
    while checks[-1] < steps:
        gap = max(gap - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
        checks.append(checks[-1] + gap)
    return [at for at in checks if at <= steps]


@dataclass
class _Run:
    """The state of a run, with a row for each image in every field."""

    rows: Tensor
    clean: Tensor
    labels: Tensor
    targets: Tensor | None
    images: Tensor
    gradient: Tensor
    before: Tensor  # the iterate before this one
    loss: Tensor  # the loss at the last step
    rises: Tensor  # how often the loss rose since the last check
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    checked_loss: Tensor  # the best loss at the last check
    eased: Tensor  # whether the step was shortened at the last check
    share: Tensor  # step length in units of the radius
    support: Tensor  # L1: how many values the best image had moved at the last check

    def select(self, keep: Tensor) -> "_Run":
        """The state of the images at these positions."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        selected: dict[str, Any] = {name: None if v is None else v[keep] for name, v in values.items()}
        return _Run(**selected)


@dataclass(frozen=True)
class _End:
    """The result of a run: the best images, their loss (infinite where fooled), and the passes spent."""

    images: Tensor
    loss: Tensor
    forwards: Tensor
    backwards: Tensor


Pass: TypeAlias = Callable[[Tensor, Tensor, Tensor | None, bool], tuple[Tensor, Tensor, Tensor]]


def _ascend(
    look: Pass,
    budget: Budget,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    *,
    start: Tensor,
    steps: int,
    rho: float,
    opening: bool,
    judged: bool,
) -> _End:
    """Ascend from a start, for all images at once. ``opening``: nothing was searched before."""
    logits, loss, gradient = look(start, labels, targets, True)
    support = _moved(start, clean, budget)
    if opening:
        support = support.clamp_min(SPARSER * FIRST_SHARE * clean[0].numel())
    run = _Run(
        rows=torch.arange(len(labels), device=labels.device),
        clean=clean,
        labels=labels,
        targets=targets,
        images=start,
        gradient=gradient,
        before=start,
        # As in the published code, whose first comparison is with 0: it decides halvings.
        loss=torch.zeros_like(loss),
        rises=torch.zeros_like(loss),
        best=start,
        best_gradient=gradient,
        best_loss=loss,
        checked_loss=loss,
        eased=torch.ones_like(labels, dtype=torch.bool),
        share=torch.full_like(loss, 1.0 if budget.norm == "l1" else 2.0),
        support=support,
    )
    end = _End(start.clone(), loss.clone(), torch.zeros_like(labels), torch.zeros_like(labels))
    checks = _sparse_checks(steps) if budget.norm == "l1" else checkpoints(steps)
    for step in range(steps + 1):
        if step:
            move = _sparse_step if budget.norm == "l1" else _step
            run.before, run.images = run.images, move(run, budget, MOMENTUM if step > 1 else 1.0)
            logits, loss, run.gradient = look(run.images, run.labels, run.targets, step < steps)
            run.rises += loss > run.loss
            run.loss, better = loss, loss > run.best_loss
            run.best_loss = torch.where(better, loss, run.best_loss)
            run.best = torch.where(_wide(better), run.images, run.best)
            run.best_gradient = torch.where(_wide(better), run.gradient, run.best_gradient)
        held = (logits.argmax(dim=1) == run.labels) | (not judged)
        end.forwards[run.rows] += 1
        # Of those that stand alone, so that counts do not depend on the rest of the batch.
        end.backwards[run.rows] += held.long() * (step < steps)
        survivors, fallen = split_rows(held)
        if len(fallen):
            end.images[run.rows[fallen]], end.loss[run.rows[fallen]] = run.images[fallen], torch.inf
            run, budget = run.select(survivors), budget.select(survivors)
        if len(run.rows) == 0:
            break
        if step in checks:
            ease = _sparser(run, budget) if budget.norm == "l1" else _ease(run, rho, step, checks)
            run.images = torch.where(_wide(ease), run.best, run.images)
            run.gradient = torch.where(_wide(ease), run.best_gradient, run.gradient)
    end.images[run.rows], end.loss[run.rows] = run.best, run.best_loss
    return end


def _pass(
    model: Classifier,
    loss: AttackLoss,
    eot: int,
    check: Callable[[Tensor], None],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    ascending: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, losses (B,) and gradient, as means over ``eot`` passes. The last images need no gradient."""
    gradient = torch.zeros_like(images)
    logits = losses = torch.zeros((), device=images.device)
    for _ in range(eot):
        leaf = images.detach().requires_grad_(ascending)
        with torch.set_grad_enabled(ascending):
            answer = model(leaf)
            check(answer)
            each = loss(answer, labels, targets)
        if ascending:
            gradient = gradient + torch.autograd.grad(each.sum(), leaf)[0] / eot
        logits, losses = logits.to(answer) + answer.detach(), losses.to(each) + each.detach() / eot
    return logits, losses, gradient


def _step(run: _Run, budget: Budget, momentum: float) -> Tensor:
    """Step along the gradient, mixed with the last movement."""
    length = _wide(run.share) * budget.radius(run.clean)
    new = budget.project(budget.step(run.images, run.gradient, length), run.clean)
    mixed = run.images + momentum * (new - run.images) + (1 - momentum) * (run.images - run.before)
    return new if momentum == 1 else budget.project(mixed, run.clean)


def _ease(run: _Run, rho: float, step: int, checks: Sequence[int]) -> Tensor:
    """Halve the step where the loss rose too rarely or nothing was gained.

    Returns:
        (B,) the images that go on from their best image.
    """
    window = step - max((at for at in checks if at < step), default=0)
    ease = (run.rises <= rho * window) | (~run.eased & (run.checked_loss >= run.best_loss))
    run.share = torch.where(ease, run.share / 2, run.share)
    run.eased, run.checked_loss, run.rises = ease, run.best_loss, torch.zeros_like(run.rises)
    return ease


def _random_start(budget: Budget, clean: Tensor, keys: Keys) -> Tensor:
    # Few large moves, as in the published code: a uniform point moves every value a little.
    if budget.norm == "l1":
        return budget.project(clean + keys.normal(0, tuple(clean.shape[1:])).to(clean), clean)
    return budget.sample(clean, keys)


def _sparse_step(run: _Run, budget: Budget, momentum: float) -> Tensor:
    """L1: let the values with the largest gradients share a step, without momentum."""
    gradient = (run.gradient * (budget.radius(run.clean) > 0)).flatten(1)
    ranked = gradient.abs().sort(dim=1, descending=True).values
    place = (run.support / SPARSER).ceil().long().clamp_min(1) - 1
    chosen = torch.where(gradient.abs() >= ranked.gather(1, place[:, None]), gradient.sign(), 0.0)
    count = chosen.abs().sum(dim=1).clamp_min(1)
    length = run.share * budget.size(run.clean) / count
    return budget.project(run.images + _wide(length) * chosen.view_as(run.images), run.clean)


def _sparse_checks(steps: int) -> Sequence[int]:
    gap = max(int(0.04 * steps), 1)
    return range(gap, steps + 1, gap)


def _sparser(run: _Run, budget: Budget) -> Tensor:
    """L1: take the full step again where the best image moves fewer values, and shorten it elsewhere.

    Returns:
        (B,) the images that go on from their best image.
    """
    moved = _moved(run.best, run.clean, budget)
    fewer = moved < 0.95 * run.support
    run.share = torch.where(fewer, 1.0, (run.share / SPARSER).clamp_min(0.1))
    run.support = moved
    return fewer


def _moved(images: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """How many values of each image moved (B,).

    A projection may leave rounding where it takes a value back. That counts as no movement: of few moved values, one
    too many keeps the next steps so wide that the projection undoes them, and the search stands still.
    """
    least = RELATIVE_TOLERANCE * budget.size(clean)
    return ((images - clean).abs() > _wide(least)).flatten(1).sum(dim=1).to(clean)


def _wide(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
