"""Squares around objects, cut out of photographs and masks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PAD = 0.1  # the most that is added to a box on each side, as a share of its longer side


class Box(NamedTuple):
    """A box of pixels: rows top <= y < bottom and columns left <= x < right."""

    top: int
    left: int
    bottom: int
    right: int


def square_region(box: Box, draws: NDArray[np.float64], pad: float = PAD) -> Box:
    """A square that holds the whole box, with random margins of up to ``pad`` times its longer side.

    The two margins along the longer side add up to ``pad`` times that side. Along the shorter side the box is centred
    first, and then shifted in the same way.
    """
    height, width = box.bottom - box.top, box.right - box.left
    longer = max(height, width)
    extra = int(pad * longer)
    down, right = (int(draw * (extra + 1)) for draw in draws)
    top = box.top - (longer - height) // 2 - down
    left = box.left - (longer - width) // 2 - right
    return Box(top, left, top + longer + extra, left + longer + extra)


def cut(array: np.ndarray, region: Box) -> np.ndarray:
    """Cut a region out of an image or mask; what lies beyond the border is 0."""
    height, width = array.shape[:2]
    out = np.zeros(
        (region.bottom - region.top, region.right - region.left, *array.shape[2:]), dtype=array.dtype
    )
    top, left = max(region.top, 0), max(region.left, 0)
    bottom, right = min(region.bottom, height), min(region.right, width)
    if top < bottom and left < right:
        out[top - region.top : bottom - region.top, left - region.left : right - region.left] = array[
            top:bottom, left:right
        ]
    return out
