"""Budgets in which a few pixels may take any value: ``L0`` and ``Patch``."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..seeding import Keys
from .arithmetic import (
    Images,
    Radius,
    as_number,
    check_precision,
    in_box,
    per_image,
    wide,
)
from .per_pixel import Linf


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
        object.__setattr__(self, "eps", as_number(self.eps))
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
        check_precision(clean)
        inside = images.clamp(0, 1)
        saved = (wide(images) - wide(clean)) ** 2 - (wide(images) - wide(inside)) ** 2
        chosen = self.choose(saved.sum(dim=1)).to(images.device)
        allowed = self.contains(images, clean).view(-1, 1, 1, 1)
        return torch.where(allowed, images, torch.where(chosen, inside, clean))

    def sample(self, clean: Images, keys: Keys, step: int = 0) -> Images:
        """Images in which random pixels that may move together have uniformly random values."""
        noise = keys.uniform(step, tuple(clean.shape[1:])).to(clean.dtype)
        return torch.where(self.choose(keys.uniform(step, tuple(clean.shape[2:]), stream=1)), noise, clean)

    def step(self, images: Images, gradient: Images, length: float | Tensor) -> Images:
        """The images after a step in which every pixel moves by ``length`` along the sign of its gradient."""
        return images + per_image(length) * gradient.sign()

    def advance(self, images: Images, gradient: Images, length: float | Tensor, clean: Images) -> Images:
        """The allowed images after a step of projected gradient ascent: ``project`` after ``step``."""
        return self.project(self.step(images, gradient, length), clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " b"]:
        """How far each image is from its clean one in units of the budget (B,)."""
        return self._extent((images != clean).any(dim=1)).to(images) / self.pixels

    def contains(self, images: Images, clean: Images) -> Bool[Tensor, " b"]:
        """Whether each image is allowed (B,)."""
        return (self.distance(images, clean) <= 1) & in_box(images)

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


def _ends(there: Bool[Tensor, "b n"]) -> tuple[Tensor, Tensor]:
    """The first place that is true, and the one behind the last (B,); both 0 where none is."""
    places = torch.arange(1, there.shape[1] + 1, device=there.device)
    behind = torch.where(there, places, 0).amax(dim=1)
    return torch.where(behind > 0, there.int().argmax(dim=1), 0), behind
