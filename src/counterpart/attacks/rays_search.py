"""RayS: the nearest adversarial image along rays through the corners of the budget, from class answers alone.

Chen and Gu 2020, arXiv 2006.12792. Lengths are in units of the radius, so that it may differ from pixel to pixel: an
image is allowed where its length is at most 1. Differs from the published code in four ways: the first direction is
itself asked about, not only its flips; a flip that helps by less than the tolerance is kept; a bisection asks about
length 1 as soon as it can, since that is what decides; and after the single values the whole image comes again.
"""

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..protocols import Attacked, Classifier, Probe
from ..seeding import Keys
from .starts import ask, images_of


@torch.no_grad()
def rays(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    queries: int = 10000,
    tolerance: float = 5e-4,
    minimise: bool = False,
) -> Attacked:
    """Perturb ``images`` within ``budget`` so that ``model`` misclassifies them, knowing its answers only.

    A direction is a sign per value. One block of signs after the other is flipped, from the whole image to single
    values; a flip stays if the model still errs at the shortest length known, which is then shortened by bisection.

    Args:
        model: maps images in [0, 1] to logits (B, K), of which the largest counts. In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in the norm linf, possibly per pixel.
        keys: not used: nothing is drawn.
        start: its signs, seen from the clean images, are the first direction; default: every value grows.
        queries: passes per image, beside the one that judges the clean image.
        tolerance: where a bisection ends, as a share of the length (below length 1: of the radius). The published
            code's value is 5.8e-4 of a radius of 8/255.
        minimise: go on for the shortest length, instead of stopping an image at the first that is allowed.

    Returns:
        For each image the one found, with ``minimise`` the nearest one; where none is allowed, as far along its best
        direction as the budget goes. Always in ``budget``; already misclassified images come back unchanged. Passes
        are counted per image, without the one that a given probe holds.

    Raises:
        ValueError: for a budget in another norm.
    """
    check_unit_range(images)
    if budget.norm != "linf":
        raise ValueError(f"rays has no {budget.norm}: use linf.")
    logits, forwards = ask(model, images, start)
    check_labels(labels, logits.shape[1])
    found, size = images.clone(), budget.size(images)
    rows = ((logits.argmax(dim=1) == labels) & (size > 0)).nonzero()[:, 0]
    values = images.shape[1:].numel()
    starts, ends = _blocks(values, images.device)
    cells = torch.arange(values, device=images.device)

    clean, answers = images[rows], labels[rows]
    radius = budget.radius(images).expand_as(images)[rows]
    low, high = (budget.project(torch.full_like(images, end), images)[rows] for end in (0, 1))
    upwards = torch.ones_like(clean, dtype=torch.bool)
    if start is not None:
        upwards = images_of(start)[rows] >= clean
    length = (
        1 / size[rows]
    )  # shortest at which the model errs; at first where the freest value crosses the whole range
    safe = torch.zeros_like(length)  # longest on this ray at which it does not
    fresh = torch.ones_like(length, dtype=torch.bool)  # asks about a flip; else bisects
    block = torch.zeros_like(answers)
    for _ in range(queries):
        if len(rows) == 0:
            break
        flipped = (cells >= starts[block, None]) & (cells < ends[block, None]) & fresh[:, None]
        trial = upwards ^ flipped.view_as(upwards)
        middle = torch.where((safe < 1) & (length > 1), 1.0, (safe + length) / 2)
        asked = torch.where(fresh, length, middle)
        candidate = _along(trial, asked, clean, radius, low, high)
        fooled = model(candidate).argmax(dim=1) != answers
        forwards[rows] += 1

        upwards = torch.where(fooled.view(-1, 1, 1, 1), trial, upwards)
        length, safe = torch.where(fooled, asked, length), torch.where(fooled, safe, asked)
        fresh = length - safe <= tolerance * length.clamp_min(1)  # at once where a flip did not help
        safe = safe.masked_fill(fresh, 0)
        block = torch.where(fresh, block + 1, block)
        block = torch.where(block == len(starts), 1, block)
        done = fooled & (asked <= 1)
        if not minimise and done.any():
            found[rows[done]] = candidate[done]
            state = (rows, clean, answers, radius, low, high, upwards, length, safe, fresh, block)
            rows, clean, answers, radius, low, high, upwards, length, safe, fresh, block = (
                one[~done] for one in state
            )
    found[rows] = _along(upwards, length.clamp_max(1), clean, radius, low, high)
    return Attacked(found, forwards, torch.zeros_like(forwards))


def _along(
    upwards: Tensor, length: Tensor, clean: Tensor, radius: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Go ``length`` radii up or down from the clean images, to the bounds: of the budget up to 1, else of pixels."""
    moved = clean + length.view(-1, 1, 1, 1) * torch.where(upwards, radius, -radius)
    allowed = (length <= 1).view(-1, 1, 1, 1)
    return moved.clamp(torch.where(allowed, low, 0.0), torch.where(allowed, high, 1.0))


def _blocks(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and one past the last value of each block: nothing, all, halves, quarters, ..., single values."""
    starts, ends, parts = [0], [0], 1
    while True:
        length = -(-count // parts)
        starts += range(0, count, length)
        ends += [min(count, first + length) for first in range(0, count, length)]
        if length == 1:
            return torch.tensor(starts, device=device), torch.tensor(ends, device=device)
        parts *= 2
