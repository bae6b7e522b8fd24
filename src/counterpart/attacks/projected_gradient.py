"""Projected gradient descent, in the form that judges a model and in the form that trains one.

Madry et al. 2018, arXiv 1706.06083. Differs from the paper in that the radius may differ from pixel to pixel. The step
length does not.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import AttackLoss, cross_entropy
from ..seeding import Keys
from .cycles import Anchor, drops_anchor, last_step
from .rows import split_rows
from .starts import aim, check_once, images_of, leaf_and_logits


def pgd(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    loss: AttackLoss = cross_entropy,
    target: Tensor | int | None = None,
    steps: int = 20,
    step_size: float | Tensor | None = None,
    restarts: int = 1,
    random_start: bool = True,
    last_iterate: bool = False,
    eot: int = 1,
    to_the_end: bool = False,
) -> Attacked:
    """Perturb ``images`` within ``budget`` so that ``model`` misclassifies them.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel.
        keys: source of the random starts.
        start: begin the first restart here instead: images, or a probe of them, whose forward pass is then
            not made again. They may lie outside the budget: the first step enters it.
        loss: per-image loss to increase.
        target: (B,) classes to move towards; or the rank, from 1, of the wrong class that the clean image is most
            like; None: untargeted. Any wrong answer counts as fooled. For the KL loss, (B, K) clean probabilities.
        steps: gradient steps; each costs one forward and one backward pass.
        step_size: absolute step length, or one per image (B,); default 2.5 / steps of each image's largest radius.
        restarts: independent random starts; only images that are not yet fooled meet the next.
        random_start: begin at a random allowed image instead of the clean one.
        last_iterate: for training: take every step for every image and return where it ends, unjudged.
        eot: passes that each gradient is the mean of, for models whose answers are random (Athalye et al. 2018, arXiv
            1707.07397). An image then counts as fooled when the mean answer is wrong.
        to_the_end: take every step, also where the answer is wrong already, which a random answer may be by chance.
            Images whose last answer is right meet the next start.

    Returns:
        For each image the first adversarial one met, else its last iterate; with ``last_iterate`` or ``to_the_end``
        always that. Always in ``budget``. Passes are counted per image, without the one that a given probe holds.
    """
    check_unit_range(images)
    if last_iterate and restarts > 1:
        raise ValueError(f"last_iterate takes one start, got restarts={restarts}.")
    targets, spent = aim(model, images, labels, target, loss)
    length = step_size if step_size is not None else budget.size(images) * (2.5 / steps)

    def first(restart: int) -> Tensor:
        return budget.sample(images, keys.fold(restart)) if random_start else images

    if last_iterate:
        current = first(0) if start is None else start
        passes = spent + steps * eot - isinstance(current, Probe)
        ends = _take_every_step(
            model, images, labels, current, lambda logits: loss(logits, labels, targets),
            budget=budget, length=length, steps=steps, eot=eot,
        )  # fmt: skip
        return Attacked(ends, torch.full_like(labels, passes), torch.full_like(labels, steps * eot))

    check = check_once(labels)

    def answer(current: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        leaf, logits = leaf_and_logits(model, current)
        check(logits)
        return leaf, logits, loss(logits, labels[rows], None if targets is None else targets[rows])

    def begin(restart: int) -> Tensor:
        return images_of(start) if start is not None and restart == 0 else first(restart)

    outcome = climb_from(
        averaged(answer, eot), images, labels, begin,
        budget=budget, length=length, steps=steps, restarts=restarts, to_the_end=to_the_end,
    )  # fmt: skip
    return Attacked(outcome.images, eot * outcome.forwards + spent, eot * outcome.backwards)


def _take_every_step(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    current: Tensor | Probe,
    losses: Callable[[Tensor], Tensor],
    *,
    budget: Budget,
    length: float | Tensor,
    steps: int,
    eot: int,
) -> Tensor:
    """The images where the climb from ``current`` ends, which nothing judges; ``losses`` are those of logits."""
    for step in range(steps):
        gradients: list[Tensor] = []
        for _ in range(eot):
            leaf, logits = leaf_and_logits(model, current)
            if step == 0:  # made once and not in every step, because it waits for the device
                check_labels(labels, logits.shape[1])
            gradients += torch.autograd.grad(losses(logits).sum(), leaf)
            current = leaf.detach()
        gradient = gradients[0] if eot == 1 else torch.stack(gradients).mean(dim=0)
        current = budget.advance(images_of(current), gradient, length, images)
    return images_of(current)


Answer: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(images (b, C, H, W), which rows of the batch they are (b,)) -> them as a leaf, logits (b, K), loss (b,) of each."""


def averaged(answer: Answer, passes: int) -> Answer:
    """The mean of several passes: of the logits, of the loss, and of its gradient.

    The expectation over transformations of Athalye et al. 2018, arXiv 1707.07397, where the model itself draws.
    """
    if passes == 1:
        return answer

    def mean(current: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gradient, answers, losses = torch.zeros_like(current), [], []
        for _ in range(passes):
            leaf, logits, loss = answer(current, rows)
            gradient += torch.autograd.grad(loss.sum(), leaf)[0] / passes
            answers.append(logits.detach())
            losses.append(loss.detach())
        leaf = current.detach().requires_grad_()
        # A function with this value and gradient, so that the graph of no pass has to be kept until the next is made.
        slope = ((leaf - leaf.detach()) * gradient).flatten(1).sum(dim=1)
        return leaf, torch.stack(answers).mean(dim=0), torch.stack(losses).mean(dim=0) + slope

    return mean


def climb_from(
    answer: Answer,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    begin: Callable[[int], Tensor],
    *,
    budget: Budget,
    length: float | Tensor,
    steps: int,
    restarts: int,
    to_the_end: bool = False,
) -> Attacked:
    """Climb from several starts, (restart) -> images (B, C, H, W). Only rows that held meet the next start."""
    perturbed = images.clone()
    forwards, backwards = torch.zeros_like(labels), torch.zeros_like(labels)
    survivors = torch.arange(len(images), device=images.device)
    for restart in range(restarts):
        climbed = climb(
            answer, images, labels, begin(restart), survivors,
            budget=budget, length=length, steps=steps, to_the_end=to_the_end,
        )  # fmt: skip
        perturbed[survivors] = climbed.images
        forwards[survivors] += climbed.forwards
        backwards[survivors] += climbed.backwards
        survivors = survivors[climbed.held]
    return Attacked(perturbed, forwards, backwards)


class Climbed(NamedTuple):
    """The result for some rows of a batch: their images, whether their answers held, and the passes of each."""

    images: Tensor
    held: Tensor
    forwards: Tensor
    backwards: Tensor


def climb(
    answer: Answer,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    begin: Float[Tensor, "b c h w"],
    rows: Int[Tensor, " r"],
    *,
    budget: Budget,
    length: float | Tensor,
    steps: int,
    to_the_end: bool = False,
) -> Climbed:
    """Climb any loss by projected gradient ascent from a start, for some rows of a batch.

    Args:
        answer: a function that asks the model.
        images: the clean images.
        labels: true classes.
        begin: the images to start from. The first step enters the budget.
        rows: the rows of the batch that climb.
        budget: the budget of the whole batch.
        length: the absolute length of a step, or one for each image of the batch (B,).
        steps: gradient steps; one pass more judges the last iterate. A row that comes back to an image that it has
            met leaves early, at the image that it would end with.
        to_the_end: take every step, also where the answer is wrong.

    Returns:
        For each row the first image that fools the model, else the last.
    """
    perturbed = torch.empty_like(images[rows])
    forwards = torch.zeros_like(rows)
    backwards, right = forwards.clone(), torch.zeros_like(rows, dtype=torch.bool)
    place = torch.arange(len(rows), device=rows.device)  # the positions of the rows that still climb
    ends = torch.full_like(rows, steps)  # the step in which each row is judged for the last time
    anchor: Anchor | None = None
    within, clean = budget.select(rows), images[rows]
    current = within.project(begin[rows], clean)
    for step in range(steps + 1):
        if len(place) == 0:
            break
        active = rows[place]
        leaf, logits, loss = answer(current, active)
        forwards[place] += 1
        perturbed[place] = current
        right[place] = logits.argmax(dim=1) == labels[active]
        if anchor is not None:
            circles = anchor.met_again(current, logits)
            ends[place] = torch.where(
                circles, ends[place].clamp_max(last_step(step, steps, step - anchor.step)), ends[place]
            )
        if not to_the_end and drops_anchor(step):
            anchor = Anchor(step, current, logits.detach())
        goes_on = right[place] & (step < ends[place])
        survivors = None if to_the_end else split_rows(goes_on)[0]  # None: all of them
        if step < steps and (survivors is None or len(survivors)):
            # The gradient of all rows: a backward pass on some of them would need another forward pass.
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
            # So that counts do not depend on the rest of the batch:
            backwards[place if survivors is None else place[survivors]] += 1
            current = within.advance(current, gradient, _rows(length, active), clean)
        if survivors is not None and len(survivors) < len(place):
            place, within = place[survivors], within.select(survivors)
            clean, current = clean[survivors], current[survivors]
            anchor = anchor and anchor.select(survivors)
    return Climbed(perturbed, right, forwards, backwards)


def fgsm(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    loss: AttackLoss = cross_entropy,
    target: Tensor | int | None = None,
    eot: int = 1,
    to_the_end: bool = False,
) -> Attacked:
    """The fast gradient sign method: a single step as long as the radius, from the clean image or from ``start``.

    Goodfellow et al. 2015, arXiv 1412.6572.
    """
    return pgd(
        model,
        images,
        labels,
        budget=budget,
        keys=keys,
        start=start,
        loss=loss,
        target=target,
        steps=1,
        step_size=budget.size(images),
        random_start=False,
        eot=eot,
        to_the_end=to_the_end,
    )


def _rows(length: float | Tensor, rows: Tensor) -> float | Tensor:
    return length[rows] if isinstance(length, Tensor) else length
