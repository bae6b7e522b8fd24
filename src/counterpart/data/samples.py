"""Samples of a program's own data set, read one by one: what a sample is, and sets that are read on demand."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from ..errors import UserError
from .decoding import in_channels

IMAGE_COLUMNS = ("image", "img", "pixel_values", ".jpg", ".jpeg", ".png", ".webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", ".cls")
GREY = ("1", "L", "LA")  # the modes that Pillow gives grey images


@dataclass(frozen=True)
class Samples:
    """The images of a data set that is too large for memory, read on demand.

    Attributes:
        data: a torch ``Dataset``, or anything else with indices.
        rows: (N,) which of its samples these are.
        sums: (N,) a checksum of each image, as it was when the data set was opened.
        dtype: the type of every image: uint8, or float32.
    """

    data: Any
    rows: Int[Tensor, " n"]
    sums: Int[Tensor, " n"]
    dtype: torch.dtype

    def read(
        self, positions: Int[Tensor, " b"], shape: tuple[int, int, int]
    ) -> UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]:
        """Read the images at some positions, each of a shape (C, H, W).

        Raises:
            UserError: an image is not what it was when the data set was opened, so that a run would not repeat.
        """
        images = torch.empty((len(positions), *shape), dtype=self.dtype)
        for place, position in enumerate(positions.tolist()):
            row = int(self.rows[position])
            image = as_sample(pair_of(self.data[row], row)[0])
            if image.shape != images.shape[1:] or checksum(image) != int(self.sums[position]):
                raise UserError(
                    f"sample {row} of {type(self.data).__name__} came out otherwise than when the data set was opened. "
                    "Leave random transforms out (data.crop, data.padding and data.flip augment)."
                )
            images[place] = image
        return images

    def subset(self, positions: Int[Tensor, " b"]) -> "Samples":
        """The samples at some positions."""
        return replace(self, rows=self.rows[positions.cpu()], sums=self.sums[positions.cpu()])


def pairs(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (image, label) of every sample, in order."""
    samples: Iterable[Any] = data
    if hasattr(data, "__getitem__") and not hasattr(data, "column_names"):
        samples = (data[position] for position in range(len(data)))
    for position, sample in enumerate(samples):
        yield pair_of(sample, position)


def pair_of(sample: Any, position: int) -> tuple[Any, Any]:
    """The image and the label of a sample: a pair, or a mapping such as a row of Hugging Face or WebDataset."""
    if isinstance(sample, Mapping):
        columns = list(sample)
        return sample[_column(columns, IMAGE_COLUMNS, "images")], sample[
            _column(columns, LABEL_COLUMNS, "labels")
        ]
    if not isinstance(sample, tuple | list) or len(sample) < 2:
        raise ValueError(f"sample {position} is {type(sample).__name__}: expected a pair (image, label).")
    return sample[0], sample[1]


def _column(columns: Sequence[str], known: Sequence[str], what: str) -> str:
    for name in known:
        if name in columns:
            return name
    raise ValueError(
        f"the data set has columns {', '.join(columns)}: none holds {what}. Rename one "
        f"to {known[0]}, or give (images, labels)."
    )


def as_sample(image: Any) -> Tensor:
    """The pixels of one image as a tensor (C, H, W), uint8 or float32."""
    if isinstance(image, Image.Image):
        array = torch.from_numpy(np.array(in_channels(image, 1 if image.mode in GREY else 3)))
        return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(f"an image is {type(image).__name__}: expected a PIL image, a tensor or an array.")
    return pixels_of(image[None] if image.ndim == 3 else image[None, None])[0]


def pixels_of(images: Any) -> Tensor:
    """The pixels of a batch of images as a tensor (N, C, H, W), uint8 or float32, on the CPU."""
    tensor = (
        images.detach().cpu()
        if isinstance(images, Tensor)
        else torch.from_numpy(np.ascontiguousarray(images))
    )
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    if tensor.shape[1] not in (1, 3) and tensor.shape[-1] in (1, 3):
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ValueError(f"images must be 8-bit integers or floats in [0, 1], got {tensor.dtype}.")
    return tensor.contiguous() if tensor.dtype == torch.uint8 else tensor.float().contiguous()


def as_label(label: Any, position: int) -> int:
    """The class index of a sample."""
    value, description = label, f"{label!r:.60}"
    if isinstance(label, Tensor | np.ndarray | np.generic):
        description = f"of shape {tuple(label.shape)}, {label.dtype}"
        value = label.item() if label.shape in ((), (1,)) else label
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the label of sample {position} is {description}: expected one class index.")
    return int(value)


def checksum(image: Tensor) -> int:
    """A number of 32 bits that tells an image from another."""
    return zlib.crc32(image.contiguous().numpy().data)
