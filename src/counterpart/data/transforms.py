"""Augmentation that moves image, parts and importance together, for a whole batch at once on its device."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..batch import Batch
from ..seeding import Keys


def as_floats(pixels: UInt8[Tensor, "..."] | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Convert 8-bit images to floats in [0, 1], with the same bits on every device; floats stay as they are.

    The divisor is a tensor because CUDA replaces a division by a number with a product, which rounds otherwise.
    """
    if pixels.is_floating_point():
        return pixels
    return pixels.float() / torch.full((), 255.0, device=pixels.device)


Augment: TypeAlias = Callable[[Batch, Keys], Batch]
"""A batch, and the keys of its samples -> the batch with every sample moved by its own draws."""


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
        """The row (B, H) and column (B, W) that each pixel comes from; those beyond the image are padding."""
        device = keys.index.device
        down = keys.integers(0, 2 * self.padding + 1, stream=0)[:, None] - self.padding
        right = keys.integers(0, 2 * self.padding + 1, stream=1)[:, None] - self.padding
        columns = torch.arange(width, device=device).expand(len(keys), width)
        if self.flip:
            columns = torch.where(keys.integers(0, 2, stream=2)[:, None] == 1, columns.flip(1), columns)
        return torch.arange(height, device=device) + down, columns + right


@dataclass(frozen=True)
class ResizedCrop:
    """A random region of the image, resized to the whole, then a random horizontal flip.

    As torchvision's ``RandomResizedCrop``, by draws that belong to the sample. Regions are cut from images of the
    data set's size, so they are never reduced: images are resampled bilinearly (antialiasing would do nothing), part
    ids by the nearest pixel, and no pixel of a part within the region is lost.

    Differs from Sitawarin et al. 2023, whose regions are cut from the files: there small regions are sharper.

    Attributes:
        scale: least and largest share of the image's area.
        ratio: least and largest width / height of the region, in pixels.
        flip: mirror half of the images.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __call__(self, batch: Batch, keys: Keys) -> Batch:
        """The batch with every sample moved by its own draws, whatever else is in the batch."""
        if len(batch) == 0:
            return batch
        height, width = batch.images.shape[-2:]
        top, left, tall, wide = self.regions(keys, height, width)
        rows = _positions(top, tall, height)
        columns = _positions(left, wide, width)
        if self.flip:
            columns = torch.where(keys.integers(0, 2, stream=4)[:, None] == 1, columns.flip(1), columns)
        ends = (top, top + tall - 1), (left, left + wide - 1)
        moved = replace(batch, images=_interpolated(batch.images, rows, columns, *ends))
        if batch.parts is not None:
            parts = _move(batch.parts[:, None], _nearest(rows, *ends[0]), _nearest(columns, *ends[1]))
            moved = replace(moved, parts=parts[:, 0])
        if batch.importance is not None:
            maps = _interpolated(batch.importance[:, None], rows, columns, *ends)
            moved = replace(moved, importance=maps[:, 0])
        return moved

    def regions(self, keys: Keys, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw top, left, height and width of each sample's region, (B,) int64.

        The first of ten draws that fits counts; if none fits, it is the largest centred region of an allowed ratio.
        """
        tries = 10
        share = self.scale[0] + (self.scale[1] - self.scale[0]) * keys.uniform(0, (tries,), stream=0).double()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = (low + (high - low) * keys.uniform(0, (tries,), stream=1).double()).exp()
        wide = (height * width * share * ratio).sqrt().round().long()
        tall = (height * width * share / ratio).sqrt().round().long()
        fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
        first = fits.long().argmax(dim=1, keepdim=True)
        fitted = fits.any(dim=1)
        wide, tall = wide.gather(1, first)[:, 0], tall.gather(1, first)[:, 0]
        whole_wide, whole_tall = width, height
        if width / height < self.ratio[0]:
            whole_tall = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            whole_wide = min(width, round(height * self.ratio[1]))
        wide, tall = wide.where(fitted, whole_wide), tall.where(fitted, whole_tall)
        top = keys.integers(0, height - tall + 1, stream=2)
        left = keys.integers(0, width - wide + 1, stream=3)
        return top.where(fitted, (height - tall) // 2), left.where(fitted, (width - wide) // 2), tall, wide


def _positions(first: Int[Tensor, " b"], length: Int[Tensor, " b"], size: int) -> Float[Tensor, "b n"]:
    """The place in the image, in pixels and float64, of the centre of each of ``size`` resized pixels."""
    centres = torch.arange(size, device=first.device, dtype=torch.float64) + 0.5
    return first[:, None] + centres * (length / size)[:, None] - 0.5


def _nearest(positions: Tensor, first: Tensor, last: Tensor) -> Int[Tensor, "b n"]:
    return (positions + 0.5).floor().long().clamp(first[:, None], last[:, None])


def _interpolated(
    planes: Float[Tensor, "b c h w"],
    rows: Tensor,
    columns: Tensor,
    row_ends: tuple[Tensor, Tensor],
    column_ends: tuple[Tensor, Tensor],
) -> Float[Tensor, "b c h w"]:
    """Interpolate (B, C, H, W) bilinearly at fractional rows (B, H) and columns (B, W), never beyond the ends."""
    for axis, places, (first, last) in ((2, rows, row_ends), (3, columns, column_ends)):
        below = places.floor()
        share = (places - below).float()
        view = [len(planes), 1, 1, 1]
        view[axis] = places.shape[1]
        taps = []
        for tap in (below, below + 1):
            source = tap.long().clamp(first[:, None], last[:, None]).view(view)
            size = list(planes.shape)
            size[axis] = places.shape[1]
            taps.append(planes.gather(axis, source.expand(size)))
        planes = torch.lerp(taps[0], taps[1], share.view(view))
    return planes


def _move(
    planes: Tensor, rows: Int[Tensor, "b h"], columns: Int[Tensor, "b w"], outside: Tensor | float = 0.0
) -> Tensor:
    """Take each pixel of (B, C, H, W) from its source, or ``outside`` where it has none."""
    height, width = planes.shape[-2:]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[
        :, None, None
    ]
    source = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    moved = planes.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, planes.shape[1], -1))
    if not isinstance(outside, Tensor):  # filled in on the device, where ``as_tensor`` would copy it there
        outside = torch.full((), outside, dtype=planes.dtype, device=planes.device)
    return torch.where(inside, moved.view(planes.shape), outside)


def resize_maps(maps: Float[Tensor, "b h w"], size: tuple[int, int]) -> Float[Tensor, "b h2 w2"]:
    """Resize maps to (H, W) bicubically with antialiasing, by Pillow's kernel (a = -0.5)."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size, mode="bicubic", antialias=True)[:, 0]
