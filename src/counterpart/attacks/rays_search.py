"""RayS: the nearest adversarial image along rays through the corners of the budget, from class answers alone.

Chen and Gu 2020, arXiv 2006.12792. Lengths are in units of the radius, so that it may differ from pixel to pixel: an
image is allowed where its length is at most 1. Differs from the published code in four ways: the first direction is
itself asked about, not only its flips; a flip that helps by less than the tolerance is kept; a bisection asks about
length 1 as soon as it can, since that is what decides; and after the single values the whole image comes again.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
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
    best = images.clone()
    rows = ((logits.argmax(dim=1) == labels) & (budget.size(images) > 0)).nonzero()[:, 0]
    search = _begin(rows, images, labels, budget, start)
    values = images.shape[1:].numel()
    starts, ends = _blocks(values, images.device)
    cells = torch.arange(values, device=images.device)
    for _ in range(queries):
        if len(search.rows) == 0:
            break
        flipped = (cells >= starts[search.block, None]) & (cells < ends[search.block, None])
        trial = search.upwards ^ (flipped & search.fresh[:, None]).view_as(search.upwards)
        asked = search.next_length()
        candidate = search.along(trial, asked)
        fooled = model(candidate).argmax(dim=1) != search.labels
        forwards[search.rows] += 1
        search = search.learn(trial, asked, fooled, tolerance, len(starts))
        done = fooled & (asked <= 1)
        if not minimise and done.any():
            best[search.rows[done]] = candidate[done]
            search = search.select(~done)
    best[search.rows] = search.along(search.upwards, search.length.clamp_max(1))
    return Attacked(best, forwards, torch.zeros_like(forwards))


@dataclass(frozen=True)
class _Rays:
    """The images that are still searched for: where they lie in the batch, and what is known of each one's ray.

    Attributes:
        rows: (B,) positions in the batch.
        low, high: bounds that the budget sets to their values.
        upwards: (B, C, H, W) direction: whether each value grows.
        length: (B,) shortest at which the model errs.
        safe: (B,) longest on this ray at which it does not.
        fresh: (B,) whether a flip is asked about; else the length is bisected.
        block: (B,) which block of values is flipped.
    """

    rows: Tensor
    clean: Tensor
    labels: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor
    upwards: Tensor
    length: Tensor
    safe: Tensor
    fresh: Tensor
    block: Tensor

    def next_length(self) -> Tensor:
        """(B,) what to ask about: the shortest length known for a flip, else the middle, or 1 as soon as it can."""
        middle = torch.where((self.safe < 1) & (self.length > 1), 1.0, (self.safe + self.length) / 2)
        return torch.where(self.fresh, self.length, middle)

    def along(self, upwards: Tensor, length: Tensor) -> Tensor:
        """Go ``length`` radii up or down, to the bounds: the budget's up to 1, else those of pixels."""
        moved = self.clean + length.view(-1, 1, 1, 1) * torch.where(upwards, self.radius, -self.radius)
        allowed = (length <= 1).view(-1, 1, 1, 1)
        return moved.clamp(torch.where(allowed, self.low, 0.0), torch.where(allowed, self.high, 1.0))

    def learn(self, trial: Tensor, asked: Tensor, fooled: Tensor, tolerance: float, blocks: int) -> "_Rays":
        """What the answers say: a direction that fools stays; a bisection that is done begins the next flip."""
        upwards = torch.where(fooled.view(-1, 1, 1, 1), trial, self.upwards)
        length, safe = torch.where(fooled, asked, self.length), torch.where(fooled, self.safe, asked)
        fresh = length - safe <= tolerance * length.clamp_min(1)  # at once where a flip did not help
        block = torch.where(fresh, self.block + 1, self.block)
        block = torch.where(block == blocks, 1, block)
        return replace(
            self, upwards=upwards, length=length, safe=safe.masked_fill(fresh, 0), fresh=fresh, block=block
        )

    def select(self, keep: Tensor) -> "_Rays":
        """The rows where ``keep`` (B,) is true."""
        return _Rays(*(getattr(self, field.name)[keep] for field in fields(self)))


def _begin(
    rows: Tensor, images: Tensor, labels: Tensor, budget: Budget, start: Tensor | Probe | None
) -> _Rays:
    clean = images[rows]
    low, high = (budget.project(torch.full_like(images, end), images)[rows] for end in (0, 1))
    upwards = torch.ones_like(clean, dtype=torch.bool)
    if start is not None:
        upwards = images_of(start)[rows] >= clean
    length = 1 / budget.size(images)[rows]  # where the freest value crosses the whole range
    return _Rays(
        rows, clean, labels[rows], budget.radius(images).expand_as(images)[rows], low, high, upwards, length,
        safe=torch.zeros_like(length), fresh=torch.ones_like(length, dtype=torch.bool),
        block=torch.zeros_like(rows),
    )  # fmt: skip


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
