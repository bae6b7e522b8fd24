"""Budgets that measure the whole perturbation: ``L2`` and ``L1``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..seeding import Keys
from .arithmetic import (
    RELATIVE_TOLERANCE,
    Images,
    Radius,
    as_number,
    beside,
    check_precision,
    check_radius,
    in_box,
    per_image,
    ratio,
    wide,
    without_checks,
)

SHORTFALL = 1e-9  # the share of a radius that an L1 projection may leave unused, far below float32


@dataclass(frozen=True)
class Ball(ABC):
    """What the budgets L2 and L1 share: a norm of the whole perturbation, and pixels that may not move.

    Attributes:
        eps: the radius of the whole perturbation: a number, or one for each image (B,).
        movable: (B, 1, H, W) or (B, C, H, W) which pixels may move: 1 for those that may, 0 for those that
            are frozen. None lets all pixels move.
    """

    norm: ClassVar[str]
    eps: Radius
    movable: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", as_number(self.eps))
        check_radius(self.eps, shapes=("()", "(B,)"), dims=(0, 1))
        mask = self.movable
        if mask is not None and (mask.ndim != 4 or not bool(((mask == 0) | (mask == 1)).all())):
            raise ValueError("movable must be (B, 1, H, W) or (B, C, H, W) of 0 and 1.")

    @abstractmethod
    def sample(self, clean: Images, keys: Keys, step: int = 0) -> Images:
        """Images at a uniformly random point of the ball, projected onto the box."""

    @abstractmethod
    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step that raises a loss with this gradient.

        ``length`` is absolute: a number, one for each image (B,), or a share of ``radius``.
        """

    def advance(self, images: Images, gradient: Images, length: float | Tensor, clean: Images) -> Images:
        """The allowed images after a step of projected gradient ascent: ``project`` after ``step``."""
        return self.project(self.step(images, gradient, length), clean)

    @abstractmethod
    def _norm(self, perturbation: Tensor) -> Tensor:
        """The norm (B,) of each of these perturbations (B, D)."""

    @abstractmethod
    def _nearest(self, wanted: Tensor, room: Tensor, radius: Tensor) -> Tensor:
        """The sizes (B, D) nearest to ``wanted`` (B, D) whose norm is ``radius`` (B,).

        No size exceeds its ``room`` (B, D).
        """

    def radius(self, clean: Images) -> Float[Tensor, "..."]:
        """How far each pixel may move alone, shaped to broadcast against ``clean``. A frozen pixel has 0."""
        return self.size(clean).view(-1, 1, 1, 1) * self._mask(clean)

    def size(self, clean: Images) -> Float[Tensor, " b"]:
        """The radius of each image (B,), which is the unit of a step length."""
        return beside(self.eps, clean).expand(len(clean))

    mean = size

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed image, exact for ball and box together. Images already allowed come back unchanged.

        Projecting on the ball and clipping afterwards would not give the nearest point.
        """
        check_precision(clean)
        projected = images.clone()
        far = (~self.contains(images, clean)).nonzero()[:, 0]
        if len(far) == 0:
            return projected
        near = clean[far]
        moved = images[far] - near
        if self.movable is not None:
            moved = moved * self._mask(clean).expand_as(clean)[far]
        wanted, origin = wide(moved.flatten(1)), wide(near.flatten(1))
        size = self._nearest(
            wanted.abs(), torch.where(wanted > 0, 1 - origin, origin), wide(self.size(clean)[far])
        )
        point = (origin + size.copysign(wanted)).to(clean.dtype)
        grown = (wide(point) - origin).abs() > size  # by rounding: a step back to the clean image
        point = torch.where(grown, point.nextafter(origin.to(point)), point)
        projected[far] = point.view_as(near).to(images)
        return projected

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " b"]:
        """How far each image is from its clean one in units of the radius (B,).

        It is infinite where a frozen pixel moved.
        """
        return self._distance(images, clean).to(images)

    def contains(self, images: Images, clean: Images) -> Bool[Tensor, " b"]:
        """Whether each image is allowed (B,)."""
        near = self._distance(images, clean) <= 1 + RELATIVE_TOLERANCE
        return near.to(images.device) & in_box(images)

    def _distance(self, images: Tensor, clean: Tensor) -> Tensor:
        perturbation = wide(images) - wide(clean)
        length = ratio(self._norm(perturbation.flatten(1)), wide(self.size(clean)))
        if self.movable is None:
            return length
        still = (perturbation * (1 - wide(self._mask(clean))) == 0).flatten(1).all(dim=1)
        return torch.where(still, length, torch.inf)

    def select(self, keep: Tensor | slice) -> "Ball":
        """The budget of those images of the batch that ``keep`` selects."""
        eps = self.eps[keep] if isinstance(self.eps, Tensor) and self.eps.ndim else self.eps
        movable = None if self.movable is None else self.movable[keep]
        return without_checks(type(self), eps=eps, movable=movable)

    def _mask(self, images: Tensor) -> Tensor:
        if self.movable is None:
            return torch.ones((), dtype=images.dtype, device=images.device)
        return self.movable.to(images.dtype)


@dataclass(frozen=True)
class L2(Ball):
    """The budget in which the Euclidean norm of the perturbation is at most ``eps``.

    The result stays in [0, 1].

    Attributes:
        eps: the radius of the whole perturbation: a number, or one for each image (B,).
        movable: (B, 1, H, W) or (B, C, H, W) which pixels may move: 1 for those that may, 0 for those that
            are frozen. None lets all pixels move.
    """

    norm: ClassVar[str] = "l2"

    def sample(self, clean: Images, keys: Keys, step: int = 0) -> Images:
        """Images at a uniformly random point of the ball, projected onto the box."""
        direction = keys.normal(step, tuple(clean.shape[1:])).to(clean.dtype) * self._mask(clean)
        count = self._mask(clean).expand_as(clean).flatten(1).sum(dim=1).clamp_min(1)
        length = keys.uniform(step, (1,), stream=2)[:, 0].to(clean.dtype) ** (1 / count)
        unit = direction / per_image(self._norm(direction.flatten(1)).clamp_min(1e-12))
        return self.project(clean + unit * per_image(length * self.size(clean)), clean)

    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step of ``length`` along the gradient of the movable pixels."""
        gradient = gradient * self._mask(images)
        norm = self._norm(gradient.flatten(1))
        unit = gradient / per_image(norm.clamp_min(torch.finfo(norm.dtype).tiny))
        return images + per_image(length) * unit

    def _norm(self, perturbation: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(perturbation, dim=1)
        return norm

    def _nearest(self, wanted: Tensor, room: Tensor, radius: Tensor) -> Tensor:
        """The sizes nearest to ``wanted``: all are scaled by one share, and end where their room does.

        Their squared norm is concave and piecewise linear in the squared share. So Newton's method from below never
        overshoots, ends more sizes in each turn and is exact after a few of them.
        """
        squares, limits = wanted**2, room**2
        share = (
            (radius**2 / squares.sum(dim=1)).nan_to_num(1).clamp_max(1)
        )  # squared; exact where no room ends
        while True:
            free = (
                torch.addcmul(limits, squares, share[:, None], value=-1).sign_().clamp_min_(0)
            )  # 1, or ended: 0
            rate = torch.linalg.vecdot(squares, free)
            unspent = radius**2 - torch.linalg.vecdot(limits, 1 - free)
            following = torch.where(rate > 0, unspent / rate, 1).clamp_max(1)
            if not (following > share).any():
                return torch.minimum(wanted * share.sqrt()[:, None], room)
            share = torch.maximum(share, following)


@dataclass(frozen=True)
class L1(Ball):
    """The budget in which the sum of absolute changes is at most ``eps``.

    The result stays in [0, 1].

    Attributes:
        eps: the radius of the whole perturbation: a number, or one for each image (B,).
        movable: (B, 1, H, W) or (B, C, H, W) which pixels may move: 1 for those that may, 0 for those that
            are frozen. None lets all pixels move.
    """

    norm: ClassVar[str] = "l1"

    def sample(self, clean: Images, keys: Keys, step: int = 0) -> Images:
        """Images at a uniformly random point of the ball, projected onto the box.

        Exponential magnitudes divided by their sum and one more exponential are uniform in the ball.
        """
        shape = tuple(clean.shape[1:])
        sign = torch.where(keys.uniform(step, shape, stream=1) < 0.5, -1.0, 1.0).to(clean.dtype)
        size = -torch.log1p(-keys.uniform(step, shape)).to(clean.dtype) * self._mask(clean)
        one_more = -torch.log1p(-keys.uniform(step, (1,), stream=2)[:, 0]).to(clean.dtype)
        share = size / per_image((size.flatten(1).sum(dim=1) + one_more).clamp_min(1e-12))
        return self.project(clean + sign * share * per_image(self.size(clean)), clean)

    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step of ``length``, which the pixels that promise most share equally.

        ``length`` is absolute: a number, or one for each image (B,). The pixels are the 5 % of the pixels
        that can still move along their gradient with the largest gradient (the sparse step of Tramèr and
        Boneh 2019, arXiv 1904.13000).
        """
        stuck = ((images >= 1) & (gradient > 0)) | ((images <= 0) & (gradient < 0))
        free = (gradient * self._mask(images)).masked_fill(stuck, 0).flatten(1)
        count = max(1, round(0.05 * free.shape[1]))
        chosen = free.abs().topk(count, dim=1).indices
        sparse = torch.zeros_like(free).scatter_(1, chosen, free.gather(1, chosen).sign())
        share = sparse / sparse.abs().sum(dim=1, keepdim=True).clamp_min(1)
        return images + per_image(length) * share.view_as(images)

    def _norm(self, perturbation: Tensor) -> Tensor:
        return perturbation.abs().sum(dim=1)

    def _nearest(self, wanted: Tensor, room: Tensor, radius: Tensor) -> Tensor:
        """The sizes nearest to ``wanted``: all less one threshold, but not below 0 or beyond their room.

        Their sum is piecewise linear in the threshold, neither convex nor concave: Newton's method, or a secant where
        it would leave the bracket. After ten turns every second one halves the bracket, so that the search ends.
        """
        low, high = torch.zeros_like(radius), wanted.amax(dim=1)
        # The sums of the sizes at both ends of the bracket.
        above, below = torch.minimum(wanted, room).sum(dim=1), torch.zeros_like(radius)
        threshold, aim = low, (1 - SHORTFALL / 2) * radius
        for turn in count(1):
            lowered = wanted - threshold[:, None]
            sizes = torch.minimum(lowered.clamp_min(0), room)
            spent = sizes.sum(dim=1)
            fits = spent <= radius
            low, above = torch.where(fits, low, threshold), torch.where(fits, above, spent)
            high, below = torch.where(fits, threshold, high), torch.where(fits, spent, below)
            wide = high - low > 1e-15 * high
            unsettled = (spent > radius) | ((spent < (1 - SHORTFALL) * radius) & (threshold > 0) & wide)
            if not unsettled.any():
                break
            rate = ((sizes == lowered) & (sizes > 0)).sum(dim=1)  # the number that the threshold moves
            newton = threshold + (spent - aim) / rate
            secant = low + (high - low) * (above - aim) / (above - below)
            guess = torch.where((newton > low) & (newton < high), newton, secant)
            if turn > 10 and turn % 2:
                guess = (low + high) / 2
            threshold = torch.where(unsettled, torch.where(wide, guess, high), threshold)
        return sizes
