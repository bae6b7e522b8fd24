"""Image files as uint8 tensors.

Files are read as torchvision's ``ImageFolder`` and timm read them, so that numbers compare: the first frame,
converted to RGB (or to grey, if asked); an alpha channel is dropped; the EXIF orientation is ignored.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ..errors import UserError
from .cropping import Region
from .opening import open_image

Prepare: TypeAlias = Callable[[Image.Image], Tensor]
"""An RGB image -> uint8 (3, H, W): a network's own way of resizing and cropping."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
WORKERS = min(16, os.cpu_count() or 1)  # Pillow decodes outside the interpreter lock


def decode(
    path: Path,
    size: int | None = None,
    prepare: Prepare | None = None,
    channels: int = 3,
    box: Region | None = None,
) -> UInt8[Tensor, "c h w"]:
    """Decode an image file as RGB, or as grey.

    Args:
        path: the file.
        size: resize the shorter side to this many pixels (bilinear, antialiased) and crop the centre square.
        prepare: resize and crop with this instead.
        channels: 3 for RGB. 1 for grey: grey images stay as they are, colours become their luma (ITU-R BT.601), and
            transparency is dropped.
        box: take this region of the file alone, before anything else.

    Raises:
        UserError: if the file is missing, damaged, or no 8-bit image.
    """
    return torch.from_numpy(np.ascontiguousarray(_decode(path, size, prepare, channels, box).numpy()))


def _decode(
    path: Path, size: int | None, prepare: Prepare | None, channels: int, box: Region | None
) -> UInt8[Tensor, "c h w"]:
    """What ``decode`` returns, as it lies in memory after decoding: whoever copies it need not order it before."""
    try:
        with open_image(path) as opened:
            image = in_channels(opened, channels)
        if box is not None:
            image = image.crop(box)
        if prepare is not None:
            return prepare(image)
        if size is not None:
            image = fit(image, size)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def decode_all(
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    prepare: Prepare | None = None,
    boxes: Sequence[Region | None] | None = None,
) -> UInt8[Tensor, "n c h w"]:
    """Decode image files, or a region of each, in several threads to one shape (C, H, W).

    Images of another size are fitted by ``prepare``, or by ``decode`` where H = W.
    """
    images = torch.empty((len(paths), *shape), dtype=torch.uint8)
    # By numpy, because torch would copy each image with all its threads, in every thread that decodes.
    places = images.numpy()
    size = shape[1] if shape[1] == shape[2] else None

    def put(position: int) -> None:
        box = None if boxes is None else boxes[position]
        image = _decode(paths[position], size, prepare, shape[0], box)
        if image.shape != images.shape[1:]:
            raise UserError(_size_changed(paths[position], image.shape, shape))
        places[position] = image.numpy()

    if WORKERS == 1:  # a process that reads ahead is one of many
        for position in range(len(paths)):
            put(position)
        return images
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(put, range(len(paths))))
    return images


def common_size(paths: Sequence[Path]) -> tuple[int, int]:
    """The size (H, W) that all images have, read off their headers.

    Raises:
        UserError: if two images differ in size; names both.
    """
    with ThreadPoolExecutor(WORKERS) as pool:
        sizes = pool.map(header_size, paths)
        first = next(sizes)
        for path, size in zip(paths[1:], sizes, strict=True):
            if size != first:
                raise UserError(
                    f"Images differ in size: {paths[0]} is {first[1]} x {first[0]} and {path} is "
                    f"{size[1]} x {size[0]}. Pass --data.size PIXELS to resize and crop all of them."
                )
    return first


def header_size(path: Path) -> tuple[int, int]:
    """The size (H, W) of an image file."""
    try:
        with open_image(path, header_only=True) as image:
            return image.height, image.width
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None


def in_channels(image: Image.Image, channels: int) -> Image.Image:
    """An image in 3 channels (RGB) or 1 (grey), of 8 bits each.

    Raises:
        ValueError: it has more than 8 bits per channel.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError(f"mode {image.mode} has more than 8 bits per channel, convert it to 8")
    # By way of RGBA: Pillow warns when a palette with transparency is converted to RGB directly.
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB" if channels == 3 else "L")


def fit(image: Image.Image, size: int, resample: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    """Resize the shorter side to ``size`` and crop the centre square, rounded as in torchvision."""
    width, height = image.size
    short = min(width, height)
    width, height = int(size * width / short), int(size * height / short)
    if image.size != (width, height):
        image = image.resize((width, height), resample)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _size_changed(path: Path, came: Sequence[int], wanted: Sequence[int]) -> str:
    return (
        f"{path} is {came[2]} x {came[1]}, the data set's images are {wanted[2]} x {wanted[1]}: "
        "it was changed since the data set was opened."
    )
