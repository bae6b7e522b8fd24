"""Perturbation budgets, which say where and how far an attacker may move each pixel.

Shapes: B images, C channels, H x W pixels. Images are floats in [0, 1] and a radius is in that same unit for
``Linf`` (so 8/255, not 8), and in the norm of the whole perturbation for ``L2`` and ``L1``. For ``L0`` it is a number
of pixels, and for ``Patch`` the side of a window.

Only this module decides what is allowed. All budgets share ``norm``, ``radius``, ``size``, ``project``,
``sample``, ``step``, ``advance``, ``distance``, ``contains`` and ``select``. What ``project`` returns always passes
``contains``: bounds are rounded inwards, so a float32 image never leaves a budget by the last bit.

Attacks that look for the nearest adversarial image measure in units of the radius: they divide what each pixel moves
by ``radius``, and an image is allowed where its ``distance`` is at most 1.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .seeding import Keys

Images: TypeAlias = Float[Tensor, "b c h w"]
if TYPE_CHECKING:
    Radius: TypeAlias = float | Tensor
else:  # a text is taken as well, and becomes a number before anybody reads it
    Radius = float | Tensor | str

RELATIVE_TOLERANCE = 1e-6
SHORTFALL = 1e-9  # the share of a radius that an L1 projection may leave unused, far below float32


@dataclass(frozen=True)
class Linf:
    """The budget in which every pixel may move by at most its radius, and the result stays in [0, 1].

    Attributes:
        eps: the radius in units of [0, 1] pixels: a number, a tensor (B,) with one for each image, or a
            tensor (B, 1, H, W) or (B, C, H, W) with one for each pixel. A pixel with radius 0 is frozen. Text
            such as "8/255" is read as that number.
        multiplied_from: a radius for all pixels, which makes ``advance`` follow the rule that section 3.2 of Zhang et
            al. 2024 (arXiv 2406.00685) prints for a mask m: delta <- m * Proj(delta + a sign g). Proj clamps to this
            radius, and m is ``eps`` divided by it. What is allowed stays the same; a pixel of small radius reaches it
            only by long steps. None: each pixel is clamped to its own radius, as in the paper's code.
    """

    norm: ClassVar[str] = "linf"
    eps: Radius
    multiplied_from: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", _as_number(self.eps))
        if self.multiplied_from is not None and not 0 < self.multiplied_from <= 1:
            raise ValueError(f"multiplied_from is a radius in (0, 1], got {self.multiplied_from!r}.")
        _check_radius(self.eps, shapes=("()", "(B,)", "(B, 1, H, W)", "(B, C, H, W)"), dims=(0, 1, 4))
        largest = float(torch.as_tensor(self.eps).max()) if _numel(self.eps) else 0.0
        if largest > 1:
            raise ValueError(
                f"eps={largest:.4g} exceeds the image range [0, 1]. Did you mean {largest:.4g}/255?"
            )

    def radius(self, clean: Images) -> Float[Tensor, "..."]:
        """The radius in the type of ``clean``, shaped to broadcast against it."""
        eps = torch.as_tensor(self.eps, dtype=clean.dtype, device=clean.device)
        return eps.view(-1, 1, 1, 1) if eps.ndim == 1 else eps

    def size(self, clean: Images) -> Float[Tensor, " b"]:
        """The largest radius of each image (B,), which is the unit of a step length."""
        return self.radius(clean).expand_as(clean).flatten(1).amax(dim=1)

    def mean(self, clean: Images) -> Float[Tensor, " b"]:
        """The mean radius of each image over its pixels."""
        return self.radius(clean).expand_as(clean).flatten(1).mean(dim=1)

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed image. Images already allowed come back unchanged."""
        _check_precision(clean)
        radius = self.radius(clean)
        low, high = _inward_sum(clean, -radius, upwards=True), _inward_sum(clean, radius, upwards=False)
        return images.clamp(low.clamp_min(0), high.clamp_max(1))

    def sample(self, clean: Images, keys: Keys, step: int = 0) -> Images:
        """Images at a uniformly random point of the ball, clipped to [0, 1]."""
        noise = 2 * keys.uniform(step, tuple(clean.shape[1:])).to(clean.dtype) - 1
        return self.project(clean + noise * self.radius(clean), clean)

    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step in which every pixel moves by ``length`` along the sign of its gradient.

        Args:
            images: (B, C, H, W) the images to start from.
            gradient: (B, C, H, W) the gradient of what shall rise.
            length: the absolute length of the step: a number, one for each image (B,), or one for each pixel,
                such as a share of ``radius``.
        """
        return images + _per_image(length) * gradient.sign()

    def advance(self, images: Images, gradient: Images, length: float | Tensor, clean: Images) -> Images:
        """The allowed images after a step of projected gradient ascent, from these images.

        This is ``project`` after ``step``, unless the budget multiplies.
        """
        stepped = self.step(images, gradient, length)
        full = self.multiplied_from
        if full is not None:
            stepped = clean + (self.radius(clean) / full) * (stepped - clean).clamp(-full, full)
        return self.project(stepped, clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " b"]:
        """How far each image is from its clean one in units of the radius (B,).

        It is infinite where a frozen pixel moved.
        """
        return self._distance(images, clean).to(images)

    def contains(self, images: Images, clean: Images) -> Bool[Tensor, " b"]:
        """Whether each image is allowed (B,). The evaluator asks this of every attack's output."""
        near = self._distance(images, clean) <= 1 + RELATIVE_TOLERANCE
        return near.to(images.device) & _in_box(images)

    def _distance(self, images: Tensor, clean: Tensor) -> Tensor:
        moved = (_wide(images) - _wide(clean)).abs()
        return _ratio(moved, _wide(self.radius(clean))).flatten(1).amax(dim=1)

    def select(self, keep: Tensor | slice) -> "Linf":
        """The budget of those images of the batch that ``keep`` selects."""
        if not isinstance(self.eps, Tensor) or self.eps.ndim == 0:
            return self
        return Linf(self.eps[keep], multiplied_from=self.multiplied_from)


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
        object.__setattr__(self, "eps", _as_number(self.eps))
        _check_radius(self.eps, shapes=("()", "(B,)"), dims=(0, 1))
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
        return torch.as_tensor(self.eps, dtype=clean.dtype, device=clean.device).expand(len(clean))

    mean = size

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed image, exact for ball and box together. Images already allowed come back unchanged.

        Projecting on the ball and clipping afterwards would not give the nearest point.
        """
        _check_precision(clean)
        projected = images.clone()
        far = (~self.contains(images, clean)).nonzero()[:, 0]
        if len(far) == 0:
            return projected
        near = clean[far]
        moved = images[far] - near
        if self.movable is not None:
            moved = moved * self._mask(clean).expand_as(clean)[far]
        wanted, origin = _wide(moved.flatten(1)), _wide(near.flatten(1))
        size = self._nearest(
            wanted.abs(), torch.where(wanted > 0, 1 - origin, origin), _wide(self.size(clean)[far])
        )
        point = (origin + size.copysign(wanted)).to(clean.dtype)
        grown = (_wide(point) - origin).abs() > size  # by rounding: a step back to the clean image
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
        return near.to(images.device) & _in_box(images)

    def _distance(self, images: Tensor, clean: Tensor) -> Tensor:
        perturbation = _wide(images) - _wide(clean)
        length = _ratio(self._norm(perturbation.flatten(1)), _wide(self.size(clean)))
        if self.movable is None:
            return length
        still = (perturbation * (1 - _wide(self._mask(clean))) == 0).flatten(1).all(dim=1)
        return torch.where(still, length, torch.inf)

    def select(self, keep: Tensor | slice) -> "Ball":
        """The budget of those images of the batch that ``keep`` selects."""
        eps = self.eps[keep] if isinstance(self.eps, Tensor) and self.eps.ndim else self.eps
        return replace(self, eps=eps, movable=None if self.movable is None else self.movable[keep])

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
        unit = direction / _per_image(self._norm(direction.flatten(1)).clamp_min(1e-12))
        return self.project(clean + unit * _per_image(length * self.size(clean)), clean)

    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step of ``length`` along the gradient of the movable pixels."""
        gradient = gradient * self._mask(images)
        norm = self._norm(gradient.flatten(1))
        unit = gradient / _per_image(norm.clamp_min(torch.finfo(norm.dtype).tiny))
        return images + _per_image(length) * unit

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
        share = size / _per_image((size.flatten(1).sum(dim=1) + one_more).clamp_min(1e-12))
        return self.project(clean + sign * share * _per_image(self.size(clean)), clean)

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
        return images + _per_image(length) * share.view_as(images)

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


@dataclass(frozen=True)
class FreePixels(ABC):
    """What the budgets L0 and Patch share: some pixels may take any value in [0, 1], and the others stay.

    A pixel is one place (y, x) with all of its channels.

    Attributes:
        eps: how many pixels may move, or the side of the window in which they may; a whole number, for all images.
    """

    norm: ClassVar[str]
    eps: Radius

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", _as_number(self.eps))
        if isinstance(self.eps, Tensor) or not (self.eps >= 1 and self.eps % 1 == 0):
            raise ValueError(
                f"the budget {self.norm} is a whole number of pixels, at least 1; got {self.eps!r}."
            )

    @property
    def pixels(self) -> int:
        """How many pixels may move, or the side of the window."""
        return int(self.eps)

    @abstractmethod
    def choose(self, worth: Float[Tensor, "b h w"]) -> Bool[Tensor, "b 1 h w"]:
        """The pixels that may move together and whose worths, none of them negative, add up to most."""

    @abstractmethod
    def _extent(self, moved: Bool[Tensor, "b h w"]) -> Tensor:
        """The smallest ``eps`` (B,) that allows these pixels to move."""

    def radius(self, clean: Images) -> Float[Tensor, "..."]:
        """How far each pixel may move alone: by 1."""
        return torch.ones((), dtype=clean.dtype, device=clean.device)

    def size(self, clean: Images) -> Float[Tensor, " b"]:
        """The unit of a step length (B,), which is 1."""
        return self.radius(clean).expand(len(clean))

    mean = size

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed image by Euclidean distance. Images already allowed come back unchanged.

        A pixel is worth what its squared distance to ``images`` falls by where it may move.
        """
        _check_precision(clean)
        inside = images.clamp(0, 1)
        saved = (_wide(images) - _wide(clean)) ** 2 - (_wide(images) - _wide(inside)) ** 2
        chosen = self.choose(saved.sum(dim=1)).to(images.device)
        allowed = self.contains(images, clean).view(-1, 1, 1, 1)
        return torch.where(allowed, images, torch.where(chosen, inside, clean))

    def sample(self, clean: Images, keys: Keys, step: int = 0) -> Images:
        """Images in which random pixels that may move together have uniformly random values."""
        noise = keys.uniform(step, tuple(clean.shape[1:])).to(clean.dtype)
        return torch.where(self.choose(keys.uniform(step, tuple(clean.shape[2:]), stream=1)), noise, clean)

    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step in which every pixel moves by ``length`` along the sign of its gradient."""
        return images + _per_image(length) * gradient.sign()

    def advance(self, images: Images, gradient: Images, length: float | Tensor, clean: Images) -> Images:
        """The allowed images after a step of projected gradient ascent: ``project`` after ``step``."""
        return self.project(self.step(images, gradient, length), clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " b"]:
        """How far each image is from its clean one in units of the budget (B,)."""
        return self._extent((images != clean).any(dim=1)).to(images) / self.pixels

    def contains(self, images: Images, clean: Images) -> Bool[Tensor, " b"]:
        """Whether each image is allowed (B,)."""
        return (self.distance(images, clean) <= 1) & _in_box(images)

    def select(self, keep: Tensor | slice) -> "FreePixels":
        """The budget of some images, which is that of all."""
        return self


@dataclass(frozen=True)
class L0(FreePixels):
    """The budget in which at most ``eps`` pixels of an image take any value in [0, 1], and the others stay.

    Attributes:
        eps: how many pixels may move, a whole number. A pixel counts once, however many of its channels move.
    """

    norm: ClassVar[str] = "l0"

    def choose(self, worth: Float[Tensor, "b h w"]) -> Bool[Tensor, "b 1 h w"]:
        """The ``eps`` pixels of largest worth."""
        flat = worth.flatten(1)
        chosen = flat.topk(min(self.pixels, flat.shape[1]), dim=1).indices
        mask = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, value=True)
        return mask.view_as(worth).unsqueeze(1)

    def _extent(self, moved: Bool[Tensor, "b h w"]) -> Tensor:
        return moved.flatten(1).sum(dim=1)


@dataclass(frozen=True)
class Patch(FreePixels):
    """The budget in which the pixels of one square window take any value in [0, 1], and the others stay.

    The attacker chooses the place of the window, which lies within the image. In a given window this is ``Linf`` with
    radius 1 there and 0 elsewhere: see ``in_window``.

    Attributes:
        eps: the side of the window in pixels, a whole number.
    """

    norm: ClassVar[str] = "patch"

    def choose(self, worth: Float[Tensor, "b h w"]) -> Bool[Tensor, "b 1 h w"]:
        """The pixels of the window of largest worth."""
        sums = self.sums(worth)
        best = sums.flatten(1).argmax(dim=1)
        corners = torch.stack([best // sums.shape[2], best % sums.shape[2]], dim=1)
        return self.window(corners, worth.unsqueeze(1))

    def sums(self, worth: Float[Tensor, "b h w"]) -> Float[Tensor, "b v u"]:
        """What the pixels of each window are worth together, by the window's upper left corner."""
        height, width = self._sides(worth)
        return avg_pool2d(worth.unsqueeze(1), (height, width), stride=1, divisor_override=1)[:, 0]

    def window(self, corners: Int[Tensor, "b 2"], images: Images) -> Bool[Tensor, "b 1 h w"]:
        """The pixels of the windows with these upper left corners (y, x)."""
        (height, width), device = self._sides(images), images.device
        rows = torch.arange(images.shape[2], device=device) - corners[:, :1]
        columns = torch.arange(images.shape[3], device=device) - corners[:, 1:]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
            :, None, :
        ]
        return inside.unsqueeze(1)

    def in_window(self, corners: Int[Tensor, "b 2"], images: Images) -> Linf:
        """The budget of the windows with these upper left corners (y, x): radius 1 inside and 0 elsewhere."""
        return Linf(self.window(corners, images).to(images.dtype))

    def corners(self, images: Images, clean: Images) -> Int[Tensor, "b 2"]:
        """The upper left corner (y, x) of a window that holds all changed pixels, the uppermost and leftmost one."""
        (height, width), moved = self._sides(images), (images != clean).any(dim=1)
        ends = [_ends(moved.any(dim=2))[1] - height, _ends(moved.any(dim=1))[1] - width]
        return torch.stack(ends, dim=1).clamp_min(0)

    def _sides(self, images: Tensor) -> tuple[int, int]:
        """The height and the width of a window, which are no larger than the image's."""
        return min(self.pixels, images.shape[-2]), min(self.pixels, images.shape[-1])

    def _extent(self, moved: Bool[Tensor, "b h w"]) -> Tensor:
        rows, columns = _ends(moved.any(dim=2)), _ends(moved.any(dim=1))
        return torch.maximum(rows[1] - rows[0], columns[1] - columns[0])


Budget: TypeAlias = Linf | Ball | FreePixels
NORMS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0, "patch": Patch}


def _ends(there: Bool[Tensor, "b n"]) -> tuple[Tensor, Tensor]:
    """The first place that is true, and the one behind the last (B,); both 0 where none is."""
    places = torch.arange(1, there.shape[1] + 1, device=there.device)
    behind = torch.where(there, places, 0).amax(dim=1)
    return torch.where(behind > 0, there.int().argmax(dim=1), 0), behind


def _numel(value: float | Tensor) -> int:
    return value.numel() if isinstance(value, Tensor) else 1


def _as_number(eps: float | Tensor | str) -> float | Tensor:
    """The number of a radius that may be written as text, as on the command line, such as "8/255"."""
    if not isinstance(eps, str):
        return eps
    numerator, _, denominator = eps.partition("/")
    try:
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"eps is a number such as 8 / 255, or a text such as '8/255'; got {eps!r}."
        ) from None


def _check_radius(eps: float | Tensor, shapes: tuple[str, ...], dims: tuple[int, ...]) -> None:
    tensor = torch.as_tensor(eps)
    if tensor.ndim not in dims:
        raise ValueError(f"eps has shape {tuple(tensor.shape)}; expected {', '.join(shapes)}.")
    if tensor.numel() and not bool((tensor >= 0).all() and tensor.isfinite().all()):
        raise ValueError(f"eps must be finite and >= 0, got {float(tensor.min()):.4g} as its smallest value.")


def _check_precision(clean: Tensor) -> None:
    """Refuse images whose type is too coarse to hold a radius: near 1, float16 has steps of an eighth of 1/255."""
    if clean.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a budget needs float32 or float64 images, got {clean.dtype}: pass images.float().")


def _ratio(moved: Tensor, radius: Tensor) -> Tensor:
    """``moved / radius``, which is 0 for a pixel at rest, and infinite for a frozen one that moves."""
    return torch.where(moved == 0, 0.0, moved / radius)


def _per_image(value: float | Tensor) -> float | Tensor:
    return value.view(-1, 1, 1, 1) if isinstance(value, Tensor) and value.ndim == 1 else value


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in float64, and on the CPU where its device (Apple's mps) has no float64."""
    return tensor.to("cpu" if tensor.device.type == "mps" else tensor.device).double()


def _in_box(images: Tensor) -> Tensor:
    return ((images >= 0) & (images <= 1)).flatten(1).all(dim=1)


def _inward_sum(a: Tensor, b: Tensor, upwards: bool) -> Tensor:
    """``a + b``, rounded up or down instead of to nearest.

    Knuth's two-sum gives the rounding error of ``a + b`` exactly, without a wider type.
    """
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    beyond = error > 0 if upwards else error < 0
    limit = torch.full_like(total, torch.inf if upwards else -torch.inf)
    return torch.where(beyond, torch.nextafter(total, limit), total)
