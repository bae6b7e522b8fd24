"""Maps of parts: enlarged strip by strip, summed up as boxes, counted on a coarser grid, turned into a mask.

A map of parts is ``part_logits (B, P + 1, h, w)``, channel 0 being the background, or ``parts (B, H, W)`` of part ids.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ROWS = 16  # rows of a strip: at 224 pixels a fourteenth of the map
FLOOR = 1e-6  # the least mass of each row and column of a part, as in the published code


def strips(
    maps: Float[Tensor, "b k h w"],
    size: tuple[int, int],
    function: Callable[[Tensor, slice], tuple[Tensor, ...]],
) -> list[tuple[Tensor, ...]]:
    """Apply a function to the maps at another size, to one strip of rows after the other.

    Maps are resized bilinearly with aligned corners, as segmenters are. A strip is forgotten once it has been read, and
    made anew in the backward pass, so that the resized maps never exist as a whole.

    Args:
        maps: part maps at their own resolution.
        size: H, W of the resized maps; where the maps have it already, they are a single strip as they are.
        function: (strip (B, K, rows, W), which rows) -> tensors.

    Returns:
        What it returned for each strip, from top to bottom.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return [function(maps, slice(0, size[0]))]
    down, across = (interpolation(maps.shape[i], size[i - 2]).to(maps) for i in (2, 3))
    gaps, spaces = maps.shape[2] - 1, max(1, size[0] - 1)

    def read_strip(maps: Tensor, rows: slice) -> tuple[Tensor, ...]:
        used = slice(rows.start * gaps // spaces, -(-(rows.stop - 1) * gaps // spaces) + 1)
        return function(down[rows, used] @ (maps[:, :, used] @ across.mT), rows)

    pieces = [slice(first, min(first + ROWS, size[0])) for first in range(0, size[0], ROWS)]
    return [
        checkpoint(read_strip, maps, rows, use_reentrant=False, preserve_rng_state=False) for rows in pieces
    ]


def interpolation(short: int, long: int) -> Float[Tensor, "{long} {short}"]:
    """The matrix that resizes a row of ``short`` values to ``long``, linearly and with aligned ends."""
    at = torch.arange(long, dtype=torch.float64) * ((short - 1) / max(1, long - 1))
    below = at.floor().clamp(max=max(0, short - 2)).long()
    share = (at - below)[:, None]
    eye = torch.eye(short, dtype=torch.float64)
    return (eye[below] * (1 - share) + eye[(below + 1).clamp(max=short - 1)] * share).float()


def boxes(part_logits: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b p 5"]:
    """Soft bounding boxes of the parts: score, centre (x, y) and spread (x, y) of each.

    Sitawarin et al. 2023, equations 1 to 4. The score averages the part's logits over the foreground, so it is
    unbounded (the paper calls it a number in [0, 1]). Centres lie in [-1, 1] and spreads, the standard deviations, in
    [0, 1], with x to the right and y downwards.

    Differs from the published code in two details: positions are those of pixel centres, so that mirrored images have
    mirrored boxes and resolutions agree (there pixels count from 0, half a pixel less); and densities add up to 1 where
    a part has hardly any mass (there centres leave the image).

    Args:
        part_logits: at the segmenter's resolution.
        size: H, W at which to compute the features.
    """

    def sums(strip: Tensor, rows: slice) -> tuple[Tensor, ...]:
        parts, background = strip[:, 1:], strip[:, 0]
        foreground = (parts.sum(dim=1) - background).sigmoid()
        shares = strip.softmax(dim=1)[:, 1:]
        weighted = (parts * foreground[:, None]).sum(dim=(2, 3))
        return weighted, foreground.sum(dim=(1, 2)), shares.sum(dim=2), shares.sum(dim=3)

    weighted, foreground, columns, rows = zip(*strips(part_logits, size, sums), strict=True)
    score = _add(weighted) / _add(foreground).clamp(min=FLOOR)[:, None]
    centre_x, spread_x = _centre(_add(columns))
    centre_y, spread_y = _centre(torch.cat(rows, dim=2))
    return torch.stack([score, centre_x, centre_y, spread_x, spread_y], dim=2)


def mean_shares(part_logits: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c"]:
    """The share (softmax) of each part and of the background, averaged over the pixels of an image of this size."""
    sums = strips(part_logits, size, lambda strip, rows: (strip.softmax(dim=1).sum(dim=(2, 3)),))
    return torch.stack([piece for (piece,) in sums]).sum(dim=0) / (size[0] * size[1])


def centroids(parts: Integer[Tensor, "b h w"], num_parts: int) -> Float[Tensor, "b p 2"]:
    """The centres (x, y) in [-1, 1] of the annotated parts, on the scale of ``boxes``; NaN where a part is absent."""
    height, width = parts.shape[1:]
    columns = part_counts(parts, num_parts, (1, width))[:, 1:, 0]
    rows = part_counts(parts, num_parts, (height, 1))[:, 1:, :, 0]
    centres = [(p * _positions(p)).sum(dim=2) / p.sum(dim=2) for p in (columns, rows)]
    return torch.stack(centres, dim=2)


def part_counts(
    parts: Integer[Tensor, "b h w"], num_parts: int, size: tuple[int, int]
) -> Float[Tensor, "b c u v"]:
    """How many pixels of each part lie in each cell of a coarser grid of (u, v) cells; ``c`` is num_parts + 1."""
    (height, width), (u, v) = parts.shape[1:], size
    rows = torch.arange(height, device=parts.device) * u // height
    columns = torch.arange(width, device=parts.device) * v // width
    cells = rows[:, None] * v + columns
    where = (parts.long() * (u * v) + cells).flatten(1)
    counts = torch.zeros(len(parts), (num_parts + 1) * u * v, device=parts.device)
    counts.scatter_add_(1, where, torch.ones_like(where, dtype=counts.dtype))
    return counts.view(len(parts), num_parts + 1, u, v)


@torch.no_grad()
def predicted_parts(part_logits: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Int[Tensor, "b h2 w2"]:
    """The likeliest part of each pixel of an image of this size."""
    return torch.cat([ids for (ids,) in strips(part_logits, size, _likeliest)], dim=1)


def _likeliest(strip: Tensor, rows: slice) -> tuple[Tensor]:
    return (strip.argmax(dim=1),)


def pooling(length: int, cells: int) -> Float[Tensor, "{cells} {length}"]:
    """The matrix of an adaptive average pooling: cell i averages floor(i n / p) up to ceil((i + 1) n / p)."""
    first = torch.arange(cells)[:, None] * length // cells
    last = -(-(torch.arange(cells)[:, None] + 1) * length // cells)
    inside = (torch.arange(length) >= first) & (torch.arange(length) < last)
    return inside / (last - first)


def _centre(profile: Float[Tensor, "b p n"]) -> tuple[Tensor, Tensor]:
    """The mean and standard deviation of a part's place along an axis that spans [-1, 1]."""
    mass = profile + FLOOR
    density, at = mass / mass.sum(dim=2, keepdim=True), _positions(profile)
    centre = (density * at).sum(dim=2)
    variance = (density * (at - centre[..., None]).square()).sum(dim=2)
    return centre, (variance + FLOOR**2).sqrt()  # the square root has an infinite slope at 0


def _positions(profile: Tensor) -> Tensor:
    n = profile.shape[2]
    return (2 * torch.arange(n, device=profile.device, dtype=profile.dtype) + 1) / n - 1


def _add(pieces: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(pieces).sum(dim=0)
