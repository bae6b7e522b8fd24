"""From saliency maps to the share of the budget's range that each pixel gets.

A mask is a plane of shares: radius = eps_low + share (eps - eps_low). So 0 is ``eps_low``, 1 is ``eps``, and only
``mean_preserving_mask`` goes beyond. Masks rank or standardise, so that the scale of a map does not matter.

Zhang et al. 2024, "Improving Accuracy-robustness Trade-off via Pixel Reweighted Adversarial Training".
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..budget.arithmetic import beside
from ..data.transforms import resize_maps
from ..seeding import Keys

MIDDLE = 0.5  # the share halfway between eps_low and eps
THRESHOLD = 1.0  # standard deviations above the image's mean


class Mask(NamedTuple):
    """Shares for one plane (P = 1) or for each channel (P = C), and which images have a map that is flat."""

    share: Float[Tensor, "b p h w"]
    flat: Bool[Tensor, " b"]


def radius_plane(mask: Mask, eps: float | Tensor, eps_low: float | Tensor) -> Float[Tensor, "b p h w"]:
    """The radius of each pixel; ``eps`` everywhere in images whose map was flat."""
    share = mask.share.masked_fill(mask.flat[:, None, None, None], 1.0)
    low, high = beside(eps_low, share), beside(eps, share)
    # Exactly eps_low at 0 and eps at 1; beyond them, rounding may leave [0, 1] by the last bit.
    return torch.lerp(low, high, share).clamp(0, 1)


def paper_mask(maps: Float[Tensor, "b u v"], size: tuple[int, int]) -> Mask:
    """``eps`` where the map exceeds the image's mean by one standard deviation (section 3.2), ``eps_low`` elsewhere.

    The map is resized, standardised and compared with 1. The paper says that it is scaled so that what it highlights
    exceeds 1, and not how; its code standardises. All channels share one plane, as the paper shows. What its code does
    is ``published_mask``.

    Args:
        maps: importance at any resolution.
        size: H, W of the images.

    Returns:
        Mask with ``share`` (B, 1, H, W) of {0, 1}. A flat map, or one with NaN or infinity, is ``flat``.
    """
    planes, flat = _resized(maps, size)
    return Mask(_exceeds(planes.flatten(1)).view_as(planes)[:, None], flat)


def quantile_mask(maps: Float[Tensor, "b u v"], size: tuple[int, int], keys: Keys, quantile: float) -> Mask:
    """``eps`` on the most important share of the pixels, ``quantile``: exactly the same number in every image.

    Among pixels of equal importance ``keys`` draw at random: any fixed order would favour a side.
    """
    planes, flat = _resized(maps, size)
    flattened = planes.flatten(1)
    shuffle = random_order(keys.fold("ties"), flattened.shape[1])
    ranking = flattened.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    top = shuffle.gather(1, ranking)[:, : _count(quantile, flattened.shape[1])]
    return Mask(torch.zeros_like(flattened).scatter(1, top, 1.0).view_as(planes)[:, None], flat)


def soft_mask(maps: Float[Tensor, "b u v"], size: tuple[int, int]) -> Mask:
    """Shares that grow evenly with the pixel's rank, from 0 to 1, with mean 1/2 in every image.

    Pixels of equal importance get the share of their mean rank.
    """
    planes, flat = _resized(maps, size)
    flattened = planes.flatten(1).contiguous()
    ordered = flattened.sort(dim=1).values
    below = torch.searchsorted(ordered, flattened)
    upto = torch.searchsorted(ordered, flattened, right=True)
    rank = (below + upto - 1).float() / 2
    return Mask((rank / max(1, flattened.shape[1] - 1)).view_as(planes)[:, None], flat)


def mean_preserving_mask(
    maps: Float[Tensor, "b u v"], size: tuple[int, int], keys: Keys, quantile: float
) -> Mask:
    """Raise the most important share of the pixels above ``eps``, until the mean radius is ``eps``.

    With eps 8/255, eps_low 7/255 and a quarter of the pixels these get 11/255. What training under it gains over
    adversarial training cannot come from a smaller budget. The rule is not in the paper.
    """
    mask = quantile_mask(maps, size, keys, quantile)
    pixels = size[0] * size[1]
    return Mask(mask.share * (pixels / _count(quantile, pixels)), mask.flat)


def published_mask(maps: Float[Tensor, "b u v"], size: tuple[int, int]) -> Mask:
    """The rule of the published code: colour the squared map, standardise its channels together, compare with 1.

    Maps are scaled to [0, 1], resized, squared, and coloured by ``jet``; a *colour channel* of a pixel gets ``eps``
    where it exceeds the coloured image's mean by one standard deviation. So the peak of a map gets ``eps_low``
    (jet's channels are dark at its red end), and no pixel gets ``eps`` in all channels.

    Differs from the published code: that one gives each image the mask of another image, since its loader
    reshuffles between drawing masks and training (here: control "shuffled"), explains the predicted class
    (here: ``map_class``), and gives NaN maps ``eps_low``.

    Returns:
        Mask with ``share`` (B, 3, H, W) of {0, 1}.
    """
    planes, flat = _resized(maps, size)
    low, high = maps.flatten(1).aminmax(dim=1)
    heat = (planes - low[:, None, None]) / (high - low)[:, None, None]
    colours = jet(heat.nan_to_num().square()).movedim(-1, 1)
    return Mask(_exceeds(colours.flatten(1)).view_as(colours), flat)


def quadrant_mask(images: Float[Tensor, "b c h w"], quadrant: str) -> Mask:
    """``eps_low`` in one quarter of the image, ``eps`` elsewhere: the proof of concept of figure 1. It reads no map."""
    height, width = images.shape[2:]
    vertical, horizontal = quadrant.split("-")
    rows = slice(0, height // 2) if vertical == "upper" else slice(height - height // 2, height)
    columns = slice(0, width // 2) if horizontal == "left" else slice(width - width // 2, width)
    share = torch.ones(len(images), 1, height, width, device=images.device)
    share[:, :, rows, columns] = 0
    return Mask(share, _none_flat(images))


def centre_mask(images: Float[Tensor, "b c h w"], quantile: float) -> Mask:
    """``eps`` on as many pixels as ``quantile_mask``, those nearest to the centre. It reads no map.

    A comparison with it shows what a map is worth beyond "objects are in the middle". Among pixels that are equally far
    from the centre, the first ones by row are taken.
    """
    height, width = images.shape[2:]
    rows = (2 * torch.arange(height, device=images.device) - (height - 1)).square()
    columns = (2 * torch.arange(width, device=images.device) - (width - 1)).square()
    nearest = (rows[:, None] + columns).flatten().argsort(stable=True)
    share = torch.zeros(height * width, device=images.device)
    share[nearest[: _count(quantile, height * width)]] = 1
    return Mask(share.view(1, 1, height, width).repeat(len(images), 1, 1, 1), _none_flat(images))


def foreground_mask(parts: Int[Tensor, "b h w"]) -> Mask:
    """``eps`` on every part of the object, ``eps_low`` on the background. It joins the two papers and is in neither.

    An image that is all background or all object is ``flat``.
    """
    inside = parts > 0
    flat = ~inside.flatten(1).any(dim=1) | inside.flatten(1).all(dim=1)
    return Mask(inside[:, None].float(), flat)


def file_mask(images: Float[Tensor, "b c h w"], shares: Float[Tensor, "b h w"] | None) -> Mask:
    """The user's own shares in [0, 1]. An image without a mask holds NaN and is ``flat``; so are all for None."""
    if shares is None:
        return Mask(torch.ones_like(images[:, :1]), ~_none_flat(images))
    absent = shares.flatten(1).isnan().any(dim=1)
    return Mask(shares.nan_to_num(1.0)[:, None], absent)


def jet(values: Float[Tensor, "..."]) -> Float[Tensor, "... 3"]:
    """Red, green and blue of values in [0, 1] in the colour map "jet", in 256 steps.

    Piecewise linear between the points below; larger values get the last colour, smaller ones the first.
    """
    steps = torch.arange(256, dtype=torch.float64) / 255
    table = torch.stack([_between(steps, points) for points in _JET], dim=1)
    index = (values * 256).floor().clamp(0, 255).long()
    return table.to(values.dtype).to(values.device)[index]


def random_order(keys: Keys, length: int) -> Int[Tensor, "b n"]:
    """A random permutation of 0 .. length - 1 for each sample."""
    return keys.bits(0, (length,)).argsort(dim=1)


_JET = (
    ((0.0, 0.0), (0.35, 0.0), (0.66, 1.0), (0.89, 1.0), (1.0, 0.5)),
    ((0.0, 0.0), (0.125, 0.0), (0.375, 1.0), (0.64, 1.0), (0.91, 0.0), (1.0, 0.0)),
    ((0.0, 0.5), (0.11, 1.0), (0.34, 1.0), (0.65, 0.0), (1.0, 0.0)),
)


def _between(at: Tensor, points: tuple[tuple[float, float], ...]) -> Tensor:
    """Linear interpolation between (position, value) points that span [0, 1]."""
    interpolated = torch.full_like(at, points[0][1])
    for (left, low), (right, high) in pairwise(points):
        inside = (at > left) & (at <= right)
        interpolated = torch.where(inside, low + (high - low) * (at - left) / (right - left), interpolated)
    return interpolated


def _resized(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Resize maps to the images' size, and say which of them are flat or not finite."""
    planes = resize_maps(maps, size)
    flattened = planes.flatten(1)
    scale = flattened.abs().amax(dim=1)
    deviation = flattened.std(dim=1, correction=0)
    return planes, ~(deviation > 1e-5 * scale)  # also true for NaN; rounding alone leaves about 1e-7


def _exceeds(flattened: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(flattened, dim=1, correction=0, keepdim=True)
    return (flattened > mean + THRESHOLD * deviation).to(flattened.dtype)


def _count(quantile: float, pixels: int) -> int:
    return max(1, round(quantile * pixels))


def _none_flat(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.bool, device=images.device)
