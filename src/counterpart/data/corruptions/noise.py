"""Noise, drawn for every value of every image by itself."""

from functools import cache

import torch
from jaxtyping import Float
from scipy.special import pdtr
from torch import Tensor

from ...seeding import Keys


def gaussian_noise(images: Float[Tensor, "b c h w"], sd: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Add normal noise."""
    return images + sd * keys.normal(0, tuple(images.shape[1:]))


def speckle_noise(images: Float[Tensor, "b c h w"], sd: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Add normal noise in proportion to the value."""
    return images + images * (sd * keys.normal(0, tuple(images.shape[1:])))


def impulse_noise(images: Float[Tensor, "b c h w"], share: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Replace a share of all values, one half by 0 and the other by 1."""
    draws = keys.uniform(0, tuple(images.shape[1:]))
    return torch.where(draws < share, (draws < share / 2).float(), images)


def shot_noise(images: Float[Tensor, "b c h w"], photons: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Replace each value by a Poisson count of mean ``photons`` times the value, divided by ``photons``.

    The count is the quantile of a uniform draw. It is looked up in one ascending table of all 256 distributions, in
    which distribution k takes the values from k to k + 1.
    """
    table = _distributions(photons).to(images.device)
    levels = (255 * images).round().double()
    draws = keys.uniform(0, tuple(images.shape[1:])).double()
    places = torch.searchsorted(table.flatten(), levels + draws, right=True)
    return (places - levels.long() * table.shape[1]).float() / photons


@cache
def _distributions(photons: float) -> Tensor:
    """The table (256, counts), float64: k plus the chance of at most that count where the value is k / 255."""
    levels = torch.arange(256, dtype=torch.float64)[:, None]
    counts = torch.arange(int(photons + 10 * photons**0.5) + 20, dtype=torch.float64)
    chances = torch.from_numpy(pdtr(counts.numpy(), (levels * photons / 255).numpy()))
    chances[:, -1] = 1
    return levels + chances
