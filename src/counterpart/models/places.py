"""Where the places of an image are in a layer's output: from there to maps (B, A, h, w), and back."""

from dataclasses import dataclass
from math import log, sqrt

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """What the axes of a layer's output mean.

    Attributes:
        order: "NCHW", "NHWC" (timm's Swin and its kind) or "NLC" (tokens).
        grid: h, w, the places.
        prefix: the number of tokens before those of the grid, such as a class token and registers.
    """

    order: str
    grid: tuple[int, int]
    prefix: int = 0

    def to_maps(self, output: Float[Tensor, "b ..."]) -> Float[Tensor, "b a h w"]:
        """Lay the output out with channels second. Prefix tokens are left out."""
        if self.order == "NHWC":
            return output.permute(0, 3, 1, 2)
        if self.order == "NLC":
            return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, *self.grid)
        return output

    def from_maps(
        self, maps: Float[Tensor, "b a h w"], output: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """Lay maps out as the output is, and put its prefix tokens before them."""
        if self.order == "NHWC":
            return maps.permute(0, 2, 3, 1)
        if self.order == "NLC":
            return torch.cat([output[:, : self.prefix], maps.flatten(2).transpose(1, 2)], dim=1)
        return maps


def places_of(
    shape: torch.Size, size: tuple[int, int], order: str = "NCHW", prefix: int = 0
) -> Places | None:
    """What the axes of an output mean, or None where it has no places.

    Args:
        shape: the shape of the output. Of four axes, the two in the middle or the last two are places: those whose
            ratio is nearer to the image's. Tokens are laid out as the image is.
        size: H, W of the image.
        order: "NCHW" or "NHWC", for an output whose shape fits both.
        prefix: how many tokens come before the grid's.
    """
    if len(shape) == 4:
        grids = {"NCHW": (shape[2], shape[3]), "NHWC": (shape[1], shape[2])}
        best = min(grids, key=lambda name: (_distortion(grids[name], size), name != order))
        return Places(best, grids[best])
    if len(shape) == 3:
        count = shape[1] - prefix
        rows = round(sqrt(max(count, 0) * size[0] / size[1]))
        if rows > 0 and count % rows == 0:
            return Places("NLC", (rows, count // rows), prefix)
    return None


def _distortion(grid: tuple[int, int], size: tuple[int, int]) -> float:
    return abs(log(grid[0] * size[1] / (grid[1] * size[0]))) if min(grid) else float("inf")
