"""Blur: out of focus, behind glass, in motion, zooming, Gaussian."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ...seeding import Keys
from .filters import convolve, gaussian, levels, motion, zoomed

Strengths = tuple[float, ...]


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


def glass_blur(
    images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys, copies: bool = False
) -> Float[Tensor, "b c h w"]:
    """(sigma, reach, rounds): blur, swap every pixel with a random one within reach, blur again.

    Differs from the published code in swapping: there, both sides of the swap are views of the same array, so that
    the partner's value is copied and the pixel's own is lost. ``copies`` does the same. Swapped values travel
    farther than copied ones, so that ours is the stronger corruption.
    """
    sigma, reach, rounds = strength
    blurred = levels(gaussian(images, sigma)) / 255
    order = _swaps(keys, int(reach), int(rounds), (images.shape[-2], images.shape[-1]), copies)
    moved = blurred.flatten(2).gather(2, order[:, None].expand(-1, images.shape[1], -1))
    return gaussian(moved.view(images.shape), sigma)


def _swaps(keys: Keys, reach: int, rounds: int, size: tuple[int, int], copies: bool) -> Int[Tensor, "b n"]:
    """Which pixel each pixel shows after all swaps (or copies), the last pixel's first, row by row.

    A swap at (h, w) can meet another only if both their rows and columns differ by less than 2 reach. So swaps
    whose 2 reach (H - h) + (W - w) is the same are made at once, and the outcome is that of one after the other.
    """
    height, width = size
    device = keys.index.device
    order = torch.arange(height * width, device=device)[:, None].repeat(1, len(keys))
    down, across = height - 2 * reach, width - 2 * reach  # swaps per column and per row
    last = (height - reach) * width + width - reach
    apart = 2 * reach
    for turn in range(rounds):
        draws = (2 * reach * keys.uniform(turn, (height * width, 2))).long() - reach
        partner = (draws[..., 0] * width + draws[..., 1]).T + torch.arange(height * width, device=device)[
            :, None
        ]
        for time in range((down - 1) * apart + across):
            first = max(0, -(-(time - across + 1) // apart))
            final = min(down - 1, time // apart)
            if first > final:
                continue
            # Up by one row and to the right by ``apart``: evenly spaced in memory.
            highest = last - first * width - (time - first * apart)
            lowest = last - final * width - (time - final * apart)
            here = slice(lowest, highest + 1, width - apart)
            there, own = partner[here], order[here].clone()
            order[here] = order.gather(0, there)
            if not copies:
                order.scatter_(0, there, own)
    return order.T
