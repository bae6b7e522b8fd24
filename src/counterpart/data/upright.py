"""Photographs as annotation tools show them: turned as their EXIF orientation says."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL.Image import Transpose

from ..errors import UserError
from .decoding import SUFFIXES, in_channels
from .opening import UPRIGHT, open_image, orientation

TURNED = 5  # from this orientation on, height and width are exchanged
TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
}  # fmt: skip


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
        with open_image(path) as opened:
            width, height = opened.size
            turn = orientation(opened)
            turned = (width, height) if turn >= TURNED else (height, width)
            if size not in (turned, (height, width)):
                raise UserError(
                    f"{path} is {turned[1]} x {turned[0]}, and {said} says {size[1]} x {size[0]}: take the image that "
                    "was annotated."
                )
            turns = turn != UPRIGHT and size == turned
            image = in_channels(opened.transpose(TURNS[turn]) if turns else opened, 3)
            pixels = np.array(image)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None
    copied = not turns and path.name.lower().endswith(SUFFIXES)
    return Upright(pixels, path if copied else pixels)


def upright_size(path: Path) -> tuple[int, int]:
    """The size (H, W) of a photograph as tools show it.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with open_image(path, header_only=True) as image:
            width, height = image.size
            exchanged = orientation(image) >= TURNED
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the image {path}: {error}. Replace or remove it.") from None
    return (width, height) if exchanged else (height, width)
