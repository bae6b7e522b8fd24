"""Square: random search with ever smaller squares, from the model's scores alone.

Andriushchenko et al. 2020, arXiv 1912.00049; for L1 the variant of Croce and Hein 2021, arXiv 2103.01208. Differs from
the published code in four ways. Place, signs and orientation of the window are drawn for each image from its keys,
where in theirs the images of a batch share a draw. The window reaches the last row and column, which theirs never does
unless it covers the image. Each pixel has a radius of its own, or is frozen. The clean image counts as the best image
until another is better.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..budget import RELATIVE_TOLERANCE, Ball, Budget, Linf
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import margin
from ..seeding import Keys
from .rows import split_rows
from .starts import ask, opening

# The queries after which the share of the pixels is halved.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
BLOCK = 100  # queries whose draws are made at once
FLOOR = 1e-12  # the least norm that is divided by


@torch.no_grad()
def square(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    queries: int = 5000,
    p_init: float = 0.8,
    restarts: int = 1,
    rescale_schedule: bool = False,
) -> Attacked:
    """Perturb ``images`` within ``budget`` so that ``model`` misclassifies them, without gradients.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel.
        keys: source of all draws.
        start: judge this, moved into the budget, instead of the clean images, and begin the first restart there
            instead of at the pattern of stripes (linf) or tiles (l2, l1).
        queries: proposals per image and restart; each costs one forward pass.
        p_init: share of the pixels in the first square, in (0, 1].
        restarts: independent runs; only images that are not yet fooled meet the next.
        rescale_schedule: shrink the squares as fast in these ``queries`` as else in 10000.

    Returns:
        For each image the first adversarial one met, else the one with the largest margin loss. Always in
        ``budget``; already misclassified images come back unchanged. Passes are counted per image, without the
        one that a given probe holds.
    """
    check_unit_range(images)
    if not 0 < p_init <= 1:
        raise ValueError(f"p_init is a share of the pixels in (0, 1], got {p_init:.4g}.")
    perturbed = opening(images, budget, start)
    logits, forwards = ask(model, perturbed, start)
    check_labels(labels, logits.shape[1])
    best = margin(logits, labels)
    survivors = (logits.argmax(dim=1) == labels).nonzero()[:, 0]
    pixels = images.shape[2] * images.shape[3]
    for restart in range(restarts):
        rows, moves, answers = (
            survivors,
            _moves(budget.select(survivors), images[survivors]),
            labels[survivors],
        )
        drawn = keys.fold(restart)[rows]
        begun = start is not None and restart == 0
        current, score = perturbed[rows], best[rows] if begun else torch.full_like(best[rows], -torch.inf)
        for query in range(int(begun), queries + 1):
            if len(rows) == 0:
                break
            if query % BLOCK == 0 or query == begun:
                draws = drawn.uniform(1 + query // BLOCK, (BLOCK, moves.draws + images.shape[1]))
            if query == 0:
                candidate = moves.pattern(drawn)
            else:
                step = (query - 1) * 10000 // queries if rescale_schedule else query - 1
                area = p_init / 2 ** bisect_left(HALVINGS, step) * pixels
                candidate = moves.propose(current, draws[:, query % BLOCK], area)
            logits = model(candidate)
            forwards[rows] += 1
            reached, held = margin(logits, answers), logits.argmax(dim=1) == answers
            better = (reached > score) | ~held
            current = torch.where(better.view(-1, 1, 1, 1), candidate, current)
            score = torch.where(better, reached, score)
            standing, fallen = split_rows(held)
            if len(fallen):
                perturbed[rows[fallen]] = current[fallen]
                rows, current, score = rows[standing], current[standing], score[standing]
                answers, moves = answers[standing], moves.select(standing)
                drawn, draws = drawn[standing], draws[standing]
        better = score > best[rows]
        perturbed[rows[better]], best[rows[better]] = current[better], score[better]
        survivors = rows
    return Attacked(perturbed, forwards, torch.zeros_like(forwards))


@dataclass(frozen=True)
class _Corners:
    """Moves for linf: every pixel of a square goes to the end of its range, up or down, with a sign for each channel.

    The paper adds or subtracts two radii and clips. From anywhere in the budget that ends in the same corner.

    Attributes:
        low: (B, C, H, W) the darkest allowed images.
        high: (B, C, H, W) the brightest allowed images.
    """

    low: Tensor
    high: Tensor
    draws = 2  # per query, beside one per channel

    def pattern(self, keys: Keys) -> Tensor:
        """Vertical stripes of one pixel, whose signs are drawn for each channel."""
        _, channels, _, width = self.low.shape
        return torch.where(keys.uniform(0, (channels, 1, width)) < 0.5, self.low, self.high)

    def propose(self, current: Tensor, draws: Tensor, area: float) -> Tensor:
        """Move a square of about ``area`` pixels on each image."""
        height, width = current.shape[2:]
        side = min(max(round(math.sqrt(area)), 1), height, width)
        tall = _covered(draws[:, 0], side, height)[:, None, :, None]
        wide = _covered(draws[:, 1], side, width)[:, None, None, :]
        corner = torch.where(draws[:, 2:, None, None] < 0.5, self.low, self.high)
        return torch.where(tall & wide, corner, current)

    def select(self, keep: Tensor) -> "_Corners":
        """The moves of some images."""
        return _Corners(self.low[keep], self.high[keep])


@dataclass(frozen=True)
class _Bumps:
    """Moves for l2 and l1: the perturbation of a window is given up, and its norm goes to a bump in another."""

    budget: Ball
    clean: Tensor
    draws = 5  # per query, beside one per channel

    def pattern(self, keys: Keys) -> Tensor:
        """Tiles with a side of a fifth of the image's, as many as fit, with a bump in each."""
        _, channels, height, width = self.clean.shape
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        drawn = keys.uniform(0, (1 + channels, down, across))
        turned, sign = drawn[:, :1] < 0.5, torch.where(drawn[:, 1:] < 0.5, -1.0, 1.0)
        bump = self._bump(side)
        # (B, C, down, side, across, side)
        tiles = torch.where(turned[..., None, :, None], bump.T[:, None], bump[:, None])
        tiles = (sign[..., None, :, None] * tiles).reshape(len(drawn), channels, down * side, across * side)
        spare = (height - down * side, width - across * side)
        sides = (spare[1] // 2, spare[1] - spare[1] // 2, spare[0] // 2, spare[0] - spare[0] // 2)
        return self._allowed(torch.nn.functional.pad(tiles, sides) * self._movable())

    def propose(self, current: Tensor, draws: Tensor, area: float) -> Tensor:
        """Put a bump into a window of about ``area`` pixels on each image, with the norm that another one gives up."""
        channels, height, width = current.shape[1:]
        side = max(round(math.sqrt(area)), 3)
        side = min(side + (side % 2 == 0), height, width)
        here, there = (
            _window(draws[:, i], draws[:, i + 1], side, height, width).expand(-1, channels, -1)
            for i in (0, 2)
        )
        moved = (current - self.clean).flatten(2)  # (B, C, H W)
        held = moved.gather(2, here)
        either = torch.zeros_like(moved).scatter(2, here, 1.0).scatter(2, there, 1.0)
        inside = self._norm(moved * either, 2)
        unspent = self.budget.size(self.clean).view(-1, 1, 1)
        if self.budget.norm == "l2":
            unspent = (unspent**2 - self._norm(moved, (1, 2)) ** 2).clamp_min(0)
            length = (unspent / channels + inside**2).sqrt()
        else:
            unspent = (unspent - self._norm(moved, (1, 2))).clamp_min(0)
            length = unspent + channels * inside  # more than allowed: the projection keeps the largest values
        bump = self._bump(side)
        bump = torch.where(draws[:, 4, None, None] < 0.5, bump.T, bump).flatten(1)[:, None]
        fresh = torch.where(draws[:, 5:, None] < 0.5, -bump, bump) + held / (self._norm(held, 2) + FLOOR)
        fresh = fresh * self._movable().expand_as(current).flatten(2).gather(2, here)
        fresh = fresh * (length / (self._norm(fresh, 2) + FLOOR))
        return self._allowed(moved.scatter(2, there, 0.0).scatter(2, here, fresh).view_as(current))

    def select(self, keep: Tensor) -> "_Bumps":
        """The moves of some images."""
        return _Bumps(self.budget.select(keep), self.clean[keep])

    def _allowed(self, perturbation: Tensor) -> Tensor:
        """The allowed images in the perturbation's direction: on the sphere (l2), or projected onto ball and box (l1).

        The sphere is smaller than the radius by the most that rounding can add, so that no projection is needed.
        """
        if self.budget.norm == "l1":
            return self.budget.project(self.clean + perturbation, self.clean)
        rounding = torch.finfo(self.clean.dtype).eps / 4 * math.sqrt(self.clean[0].numel())
        reach = (self.budget.size(self.clean) * (1 - RELATIVE_TOLERANCE) - rounding).clamp_min(0)
        share = reach.view(-1, 1, 1, 1) / (self._norm(perturbation, (1, 2, 3)) + FLOOR)
        return (self.clean + perturbation * share).clamp(0, 1)

    def _norm(self, perturbation: Tensor, dim: int | tuple[int, ...]) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(
            perturbation, 2 if self.budget.norm == "l2" else 1, dim, keepdim=True
        )
        return norm

    def _movable(self) -> Tensor:
        mask = self.budget.movable
        return torch.ones_like(self.clean[:1, :1]) if mask is None else mask.to(self.clean)

    def _bump(self, side: int) -> Tensor:
        """A bump (side, side) of norm 1: a hill above a dale, both made of rectangles around a centre.

        The k-th rectangle from the centre adds 1 / k^2 to all that it covers; in l1 1 / k^4.
        """
        hill, dale = self._hill(side // 2, side), self._hill(side - side // 2, side)
        both = torch.cat([hill, -dale])
        return both / self._norm(both, (0, 1))

    def _hill(self, height: int, width: int) -> Tensor:
        centre, device = (height // 2, width // 2), self.clean.device
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        ring = torch.maximum((rows - centre[0]).abs()[:, None], (columns - centre[1]).abs())
        order = torch.arange(1, max(centre) + 2, device=device, dtype=self.clean.dtype)
        added = order ** (-2 if self.budget.norm == "l2" else -4)
        hill = (
            added.flip(0).cumsum(0).flip(0)[ring]
        )  # a ring is covered by its own rectangle and all larger ones
        return hill / (self._norm(hill, (0, 1)) + FLOOR)


_Moves: TypeAlias = _Corners | _Bumps


def _moves(budget: Budget, clean: Tensor) -> _Moves:
    if isinstance(budget, Linf):
        zero = torch.zeros_like(clean)
        return _Corners(low=budget.project(zero, clean), high=budget.project(zero + 1, clean))
    if isinstance(budget, Ball):
        return _Bumps(budget, clean)
    raise ValueError(f"square has no {budget.norm} budget: it has linf, l2, l1.")


def _covered(draw: Tensor, side: int, size: int) -> Tensor:
    """Which of ``size`` positions, (B, size), belong to the ``side`` neighbours that a uniform draw (B,) chooses."""
    first = (draw * (size - side + 1)).long()[:, None]
    cells = torch.arange(size, device=draw.device)
    return (cells >= first) & (cells < first + side)


def _window(down: Tensor, across: Tensor, side: int, height: int, width: int) -> Tensor:
    """The flat positions (B, 1, side * side) of a window that two uniform draws (B,) choose."""
    cells = torch.arange(side, device=down.device)
    rows = (down * (height - side + 1)).long()[:, None] + cells
    columns = (across * (width - side + 1)).long()[:, None] + cells
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None]
