"""The budget with a radius for each pixel: ``Linf``."""

from dataclasses import dataclass, field
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
    inward_sum,
    numel,
    per_image,
    ratio,
    wide,
    without_checks,
)


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
    multiplied_from: float | Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", as_number(self.eps))
        if self.multiplied_from is not None and not 0 <= self.multiplied_from <= 1:
            raise ValueError(f"multiplied_from is a radius in [0, 1], got {self.multiplied_from!r}.")
        check_radius(self.eps, shapes=("()", "(B,)", "(B, 1, H, W)", "(B, C, H, W)"), dims=(0, 1, 4))
        largest = float(torch.as_tensor(self.eps).max()) if numel(self.eps) else 0.0
        if largest > 1:
            raise ValueError(
                f"eps={largest:.4g} exceeds the image range [0, 1]. Did you mean {largest:.4g}/255?"
            )

    def radius(self, clean: Images) -> Float[Tensor, "..."]:
        """The radius in the type of ``clean``, shaped to broadcast against it."""
        eps = beside(self.eps, clean)
        return eps.view(-1, 1, 1, 1) if eps.ndim == 1 else eps

    def size(self, clean: Images) -> Float[Tensor, " b"]:
        """The largest radius of each image (B,), which is the unit of a step length."""
        return self.radius(clean).expand_as(clean).flatten(1).amax(dim=1)

    def mean(self, clean: Images) -> Float[Tensor, " b"]:
        """The mean radius of each image over its pixels."""
        return self.radius(clean).expand_as(clean).flatten(1).mean(dim=1)

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed image. Images already allowed come back unchanged."""
        check_precision(clean)
        radius = self.radius(clean)
        low, high = inward_sum(clean, -radius, upwards=True), inward_sum(clean, radius, upwards=False)
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
        return images + per_image(length) * gradient.sign()

    def advance(self, images: Images, gradient: Images, length: float | Tensor, clean: Images) -> Images:
        """The allowed images after a step of projected gradient ascent, from these images.

        This is ``project`` after ``step``, unless the budget multiplies.
        """
        stepped = self.step(images, gradient, length)
        if self.multiplied_from is not None:
            full = beside(self.multiplied_from, clean)
            share = ratio(self.radius(clean), full)  # 0 also where a radius that grows is still 0
            stepped = clean + share * (stepped - clean).clamp(-full, full)
        return self.project(stepped, clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " b"]:
        """How far each image is from its clean one in units of the radius (B,).

        It is infinite where a frozen pixel moved.
        """
        return self._distance(images, clean).to(images)

    def contains(self, images: Images, clean: Images) -> Bool[Tensor, " b"]:
        """Whether each image is allowed (B,). The evaluator asks this of every attack's output."""
        near = self._distance(images, clean) <= 1 + RELATIVE_TOLERANCE
        return near.to(images.device) & in_box(images)

    def _distance(self, images: Tensor, clean: Tensor) -> Tensor:
        moved = (wide(images) - wide(clean)).abs()
        return ratio(moved, wide(self.radius(clean))).flatten(1).amax(dim=1)

    def select(self, keep: Tensor | slice) -> "Linf":
        """The budget of those images of the batch that ``keep`` selects."""
        if not isinstance(self.eps, Tensor) or self.eps.ndim == 0:
            return self
        return without_checks(Linf, eps=self.eps[keep], multiplied_from=self.multiplied_from)
