"""Noise, drawn for every value of every image by itself."""

from functools import cache

import torch
from jaxtyping import Float
from scipy.special import pdtr
from torch import Tensor

from ...seeding import Keys


def gaussian_noise(images: Float[Tensor, "b c h w"], sd: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Normal noise is added."""
    return images + sd * keys.normal(0, tuple(images.shape[1:]))


def speckle_noise(images: Float[Tensor, "b c h w"], sd: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Normal noise in proportion to the value."""
    return images + images * (sd * keys.normal(0, tuple(images.shape[1:])))


def impulse_noise(images: Float[Tensor, "b c h w"], share: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """A share of all values becomes 0 or 1, one half each."""
    draws = keys.uniform(0, tuple(images.shape[1:]))
    return torch.where(draws < share, (draws < share / 2).float(), images)


def shot_noise(images: Float[Tensor, "b c h w"], photons: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Poisson counts of mean ``photons`` times the value.

    The count is the quantile of one uniform draw, looked up in one ascending table of all 256 distributions:
    distribution k lies between k and k + 1.
    """
    table = _distributions(photons).to(images.device)
    levels = (255 * images).round().double()
    draws = keys.uniform(0, tuple(images.shape[1:])).double()
    places = torch.searchsorted(table.flatten(), levels + draws, right=True)
    return (places - levels.long() * table.shape[1]).float() / photons


@cache
def _distributions(photons: float) -> Tensor:
    """(256, counts) float64: k plus the chance of at most that count where the value is k / 255."""
    levels = torch.arange(256, dtype=torch.float64)[:, None]
    counts = torch.arange(int(photons + 10 * photons**0.5) + 20, dtype=torch.float64)
    chances = torch.from_numpy(pdtr(counts.numpy(), (levels * photons / 255).numpy()))
    chances[:, -1] = 1
    return levels + chances
