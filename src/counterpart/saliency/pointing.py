"""The pointing game: whether the highest place of a map lies within the object."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def points_of(maps: Float[Tensor, "b u v"], size: tuple[int, int]) -> Int[Tensor, "b 2"]:
    """The pixel (row, column) of images of a size (H, W) at which each map points.

    It is the pixel at the centre of the map's highest cell; of several that are equally high, of the first one in
    reading order. An enlarged map would have its maximum there too, but for what its interpolation adds at borders.
    """
    highest = maps.flatten(1).argmax(dim=1)
    rows, columns = highest // maps.shape[2], highest % maps.shape[2]
    return torch.stack(
        [_centres(rows, maps.shape[1], size[0]), _centres(columns, maps.shape[2], size[1])], dim=1
    )


def pointing_hits(
    maps: Float[Tensor, "b u v"], objects: Bool[Tensor, "b h w"]
) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Whether each map points into the object of its image, and for which images there is an object to point at.

    Zhang et al. 2016 (Excitation Backprop, arXiv 1608.00507), section 4.1. Differs from the paper in that a hit has to
    lie within the object itself, where the paper forgives 15 pixels; and in that the object is the union of its parts.
    A map that is flat points nowhere, which is a miss.

    Args:
        maps: (B, h, w) at their own resolution.
        objects: (B, H, W) whether a pixel belongs to the object.

    Returns:
        Hits, which are false where there is no object; and whether there is one.
    """
    points = points_of(maps, (objects.shape[1], objects.shape[2]))
    inside = objects[torch.arange(len(objects), device=objects.device), points[:, 0], points[:, 1]]
    low, high = maps.flatten(1).aminmax(dim=1)
    return inside & (low < high), objects.flatten(1).any(dim=1)


def _centres(cells: Int[Tensor, " b"], count: int, length: int) -> Int[Tensor, " b"]:
    """The pixel, of so many, in which the centre of each cell, of ``count``, lies."""
    return (2 * cells + 1) * length // (2 * count)
