"""Blur: out of focus, behind glass, in motion, zooming, Gaussian."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...seeding import Keys
from .constants import Strengths
from .filters import convolve, gaussian, levels, motion, zoomed


def gaussian_blur(images: Float[Tensor, "b c h w"], sigma: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Gaussian blur."""
    return gaussian(images, sigma)


def defocus_blur(
    images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys
) -> Float[Tensor, "b c h w"]:
    """Convolution with a disk: (radius, sigma of the Gaussian that smooths its rim)."""
    return convolve(images, _disk(*strength))


@cache
def _disk(radius: float, sigma: float) -> Float[Tensor, "k k"]:
    """A disk that sums to 1, smoothed by a Gaussian of 3 (above radius 8: of 5) weights a side."""
    reach, taps = (8, 3) if radius <= 8 else (int(radius), 5)
    away = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = ((away[:, None] ** 2 + away**2) <= radius**2).double()
    rim = torch.exp(-((torch.arange(taps, dtype=torch.float64) - taps // 2) ** 2) / (2 * sigma**2))
    rim = rim / rim.sum()
    edge = (taps // 2,) * 4
    padded = F.pad((disk / disk.sum())[None, None], edge, mode="reflect")
    return F.conv2d(padded, (rim[:, None] * rim)[None, None])[0, 0]


def motion_blur(
    images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys
) -> Float[Tensor, "b c h w"]:
    """(radius, sigma) of a blur along a direction within 45 degrees of the horizontal."""
    radius, sigma = strength
    return motion(images, int(radius), sigma, 90 * keys.uniform(0, (1,))[:, 0] - 45)


def zoom_blur(images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys) -> Float[Tensor, "b c h w"]:
    """(end, step): mean of the image and of enlargements by 1, 1 + step, ... before the end."""
    # numpy's rounding decides whether the end itself is in the list, and the published lists have it so.
    factors = np.arange(1, *strength).tolist()
    total = images.clone()
    for factor in factors:
        total += zoomed(images, factor)
    return total / (len(factors) + 1)


def glass_blur(images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys) -> Float[Tensor, "b c h w"]:
    """(sigma, reach, rounds): blur, replace every pixel by a random one within reach, blur again.

    The published code means to swap the two, but both sides of its swap are views of one array, so that the partner's
    value is copied and the pixel's own is lost. The published images are made so, and ours too.
    """
    sigma, reach, rounds = strength
    pixels = (levels(gaussian(images, sigma)) / 255).flatten(2)
    for turn in range(int(rounds)):
        sources = _copies(keys, turn, int(reach), (images.shape[-2], images.shape[-1]))
        pixels = pixels.gather(2, sources[:, None].expand(-1, images.shape[1], -1))
    return gaussian(pixels.view(images.shape), sigma)


def _copies(keys: Keys, turn: int, reach: int, size: tuple[int, int]) -> Int[Tensor, "b n"]:
    """Which pixel each pixel shows after one round of copies, the last pixel's first, row by row.

    A pixel copies what its partner shows by then: what the partner has copied itself if it comes later in the image,
    and else its old value. So chains of partners lead on through the image, and are followed in leaps of 1, 2, 4, ...
    """
    height, width = size
    device = keys.index.device
    n = height * width
    place = torch.arange(n, device=device).view(height, width)
    shift = (2 * reach * keys.uniform(turn, (n, 2))).long() - reach
    partner = place.flatten() + shift[..., 0] * width + shift[..., 1]
    copying = torch.zeros(height, width, dtype=torch.bool, device=device)
    copying[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] = True
    copying = copying.flatten()
    partner = torch.where(copying, partner, place.flatten())
    # Below n a pixel's old value, which ends a chain; from n on what the pixel n before has copied.
    goes_on = (partner > place.flatten()) & copying[partner]
    leap = torch.where(goes_on, partner + n, partner)
    while bool((leap >= n).any()):
        leap = torch.where(leap >= n, leap.gather(1, leap % n), leap)
    return leap
