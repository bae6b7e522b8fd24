"""What annotators draw around objects and parts: polygons, circles, run lengths. Boxes, masks, what lies in what."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from . import coco
from .crops import Box

POINTS = 64  # of an outline that are looked at to see what it lies in


class Circle(NamedTuple):
    """A filled circle, in pixels."""

    x: float
    y: float
    radius: float


def draw(outline: object, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The mask of an outline: a pixel is in if its middle is.

    Args:
        outline: a ``Circle``, or a segmentation as COCO has it.
        height: of the image.
        width: of the image.

    Raises:
        ValueError: the outline is wrong, crosses itself or covers no pixel.
    """
    if isinstance(outline, Circle):
        y, x = np.ogrid[0.5:height, 0.5:width]
        covered = (x - outline.x) ** 2 + (y - outline.y) ** 2 <= outline.radius**2
    else:
        covered = coco.mask(outline, height, width, simple=True)
    if not covered.any():
        raise ValueError("an outline that covers no pixel")
    return np.asarray(covered)


def box_of(outline: object, height: int, width: int) -> Box:
    """The box around an outline within its image. No mask is drawn.

    Raises:
        ValueError: the outline is wrong or lies outside of the image.
    """
    if isinstance(outline, Circle):
        x, y, radius = outline
        if not np.abs(outline).max() <= coco.FAR * (height + width):
            raise ValueError(f"a circle that reaches more than {coco.FAR} times the size of the image away")
        top, left, bottom, right = y - radius, x - radius, y + radius, x + radius
    else:
        top, left, bottom, right = coco.extent(outline, height, width)
    box = Box(
        max(0, int(np.floor(top))), max(0, int(np.floor(left))),
        min(height, int(np.ceil(bottom))), min(width, int(np.ceil(right))),
    )  # fmt: skip
    if box.bottom <= box.top or box.right <= box.left:
        raise ValueError("an outline that lies outside of the image or has no area")
    return box


def union(boxes: list[Box]) -> Box:
    """The box around boxes."""
    tops, lefts, bottoms, rights = zip(*boxes, strict=True)
    return Box(min(tops), min(lefts), max(bottoms), max(rights))


def area(box: Box) -> int:
    """How many pixels a box has."""
    return (box.bottom - box.top) * (box.right - box.left)


def share_within(part: Box, whole: Box) -> float:
    """How much of a box lies in another, from 0 to 1."""
    height = min(part.bottom, whole.bottom) - max(part.top, whole.top)
    width = min(part.right, whole.right) - max(part.left, whole.left)
    return max(0, height) * max(0, width) / area(part)


def points_within(part: object, box: Box, whole: object) -> float:
    """Which share of an outline's corners lies inside another outline.

    Args:
        part: whose corners are looked at; of a circle and of run lengths the middle of the box.
        box: of the part.
        whole: the other outline; of run lengths all counts as inside, because their box has been looked at.
    """
    if isinstance(whole, Mapping):
        return 1.0
    if isinstance(part, Circle | Mapping):
        points = np.array([[(box.left + box.right) / 2, (box.top + box.bottom) / 2]])
    else:
        corners = np.concatenate(_rings(part))
        points = corners[np.linspace(0, len(corners) - 1, min(POINTS, len(corners))).astype(int)]
    if isinstance(whole, Circle):
        inside = np.hypot(points[:, 0] - whole.x, points[:, 1] - whole.y) <= whole.radius
        return float(inside.mean())
    inside = np.zeros(len(points), dtype=np.bool_)
    for ring in _rings(whole):
        inside |= _in_polygon(points, ring)
    return float(inside.mean())


def _rings(outline: Any) -> list[NDArray[np.float64]]:
    return [coco.corners(numbers) for numbers in outline]


def _in_polygon(points: Float[np.ndarray, "n 2"], ring: Float[np.ndarray, "m 2"]) -> NDArray[np.bool_]:
    """Whether points lie in a polygon: a ray to the right crosses the border an odd number of times."""
    odd = np.zeros(len(points), dtype=np.bool_)
    for (x, y), (next_x, next_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if y == next_y:
            continue
        crosses = (y > points[:, 1]) != (next_y > points[:, 1])
        odd ^= crosses & (points[:, 0] < x + (points[:, 1] - y) * (next_x - x) / (next_y - y))
    return odd
