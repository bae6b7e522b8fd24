"""Photographs as annotation tools show them: turned as their EXIF orientation says."""

import base64
import binascii
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UserError
from ..parsing import read_json
from .decoding import DAMAGED, SUFFIXES, in_channels

ORIENTATION, UPRIGHT = 0x0112, 1  # of EXIF
TURNED = 5  # from this orientation on, height and width are exchanged


class Upright(NamedTuple):
    """A photograph: its pixels, and what is stored where it is not cropped: the file if it can be copied, or them."""

    pixels: UInt8[np.ndarray, "h w 3"]
    as_stored: Path | UInt8[np.ndarray, "h w 3"]


def read_upright(path: Path, size: tuple[int, int], said: str) -> Upright:
    """Read a photograph in the orientation in which it was annotated.

    Tools show photographs turned as EXIF says, so that is how their outlines lie. Where the annotated size fits the
    file alone as it is stored, the tool did not turn it.

    Args:
        path: of the image, or of the LabelMe file that holds it.
        size: height and width, as the annotation has them.
        said: the annotation file.

    Raises:
        UserError: if the image is damaged or has another size.
    """
    try:
        with _open(path) as opened:
            width, height = opened.size
            orientation = opened.getexif().get(ORIENTATION, UPRIGHT)
            turned = (width, height) if orientation >= TURNED else (height, width)
            if size not in (turned, (height, width)):
                raise UserError(
                    f"{path} is {turned[1]} x {turned[0]}, and {said} says {size[1]} x {size[0]}: take the image that "
                    "was annotated."
                )
            turn = orientation != UPRIGHT and size == turned
            image = in_channels(ImageOps.exif_transpose(opened) if turn else opened, 3)
            pixels = np.array(image)
    except DAMAGED as error:
        raise UserError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None
    copied = not turn and path.name.lower().endswith(SUFFIXES)
    return Upright(pixels, path if copied else pixels)


def upright_size(path: Path) -> tuple[int, int]:
    """The size (H, W) of a photograph as tools show it.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with _open(path) as image:
            width, height = image.size
            exchanged = image.getexif().get(ORIENTATION, UPRIGHT) >= TURNED
    except DAMAGED as error:
        raise UserError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None
    return (width, height) if exchanged else (height, width)


def _open(path: Path) -> Image.Image:
    """Open an image file, or the image that a LabelMe file holds as text."""
    if path.suffix.lower() != ".json":
        return Image.open(path)
    try:
        return Image.open(BytesIO(base64.b64decode(read_json(path)["imageData"])))
    except (TypeError, KeyError, binascii.Error, UnidentifiedImageError):
        raise ValueError("its imageData is no image") from None
