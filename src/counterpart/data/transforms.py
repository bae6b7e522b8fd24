"""Augmentation that moves image, parts and importance together, for a whole batch at once on its device."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..batch import Batch
from ..seeding import Keys


def as_floats(pixels: UInt8[Tensor, "..."]) -> Float[Tensor, "..."]:
    """8-bit images as floats in [0, 1], the same bits on every device.

    Divided by a tensor: by a number, CUDA multiplies with its reciprocal, which rounds otherwise.
    """
    return pixels.float() / torch.full((), 255.0, device=pixels.device)


@dataclass(frozen=True)
class Augmentation:
    """Random crop after zero padding, then a random horizontal flip.

    Attributes:
        padding: pixels added on every side before the crop; 0: no crops.
        flip: mirror half of the images.
    """

    padding: int = 4
    flip: bool = True

    def __call__(self, batch: Batch, keys: Keys) -> Batch:
        """The batch with every sample moved by its own draws, whatever else is in the batch.

        What moves in from outside is 0 in images, background (0) in parts, and each map's own minimum in the
        importance, so that padding never counts as important.
        """
        if self.padding == 0 and not self.flip:
            return batch
        rows, columns = self._sources(keys, *batch.images.shape[-2:])
        moved = replace(batch, images=_move(batch.images, rows, columns))
        if batch.parts is not None:
            moved = replace(moved, parts=_move(batch.parts[:, None], rows, columns)[:, 0])
        if batch.importance is not None:
            outside = batch.importance.flatten(1).amin(dim=1).view(-1, 1, 1, 1)
            moved = replace(moved, importance=_move(batch.importance[:, None], rows, columns, outside)[:, 0])
        return moved

    def _sources(self, keys: Keys, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Which row (B, H) and column (B, W) each pixel comes from; beyond the image: the padding."""
        device = keys.index.device
        down = keys.integers(0, 2 * self.padding + 1, stream=0)[:, None] - self.padding
        right = keys.integers(0, 2 * self.padding + 1, stream=1)[:, None] - self.padding
        columns = torch.arange(width, device=device).expand(len(keys), width)
        if self.flip:
            columns = torch.where(keys.integers(0, 2, stream=2)[:, None] == 1, columns.flip(1), columns)
        return torch.arange(height, device=device) + down, columns + right


def _move(
    planes: Tensor, rows: Int[Tensor, "b h"], columns: Int[Tensor, "b w"], outside: Tensor | float = 0.0
) -> Tensor:
    """(B, C, H, W) of any type with each pixel taken from its source, ``outside`` where there is none."""
    height, width = planes.shape[-2:]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[
        :, None, None
    ]
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    moved = planes.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, planes.shape[1], -1))
    fill = torch.as_tensor(outside, dtype=planes.dtype, device=planes.device)
    return torch.where(inside, moved.view(planes.shape), fill)


def resize_maps(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b h2 w2"]:
    """Maps at another size (H, W): bicubic with antialiasing, which is Pillow's kernel (a = -0.5)."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bicubic", antialias=True)[:, 0]
