"""Squares around the annotated parts of images, to which images and their masks are cropped as they are read."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Integer

Region: TypeAlias = tuple[int, int, int, int]
"""Left, top, right and bottom of a region, in pixels of the file; the last two lie just outside."""


def square_around_parts(ids: Integer[np.ndarray, "h w"], margin: float) -> Region | None:
    """The square around all parts of a mask and a margin; None for a mask without parts.

    The square is no larger than the shorter side of the image, and is moved into it where it would stand out. So a
    part is cut off only where parts stretch over more than that side.

    Args:
        ids: the part of each pixel, 0 for background.
        margin: what is added on each side, as a share of the square's side.
    """
    rows, columns = (np.flatnonzero((ids > 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    height, width = ids.shape
    first_row, end_row = int(rows[0]), int(rows[-1]) + 1
    first_column, end_column = int(columns[0]), int(columns[-1]) + 1
    longer = max(end_row - first_row, end_column - first_column)
    side = min(round(longer * (1 + 2 * margin)), height, width)
    x = min(max((first_column + end_column - side) // 2, 0), width - side)
    y = min(max((first_row + end_row - side) // 2, 0), height - side)
    return x, y, x + side, y + side
