"""Linear filters that several corruptions share, each image by itself whatever else is in the batch."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

ROUNDS_AWAY = 1e-6  # weights of a kernel below this change no 8-bit value
FORGIVEN = 2e-4  # what a value may lack of a whole level: floating point


@cache
def _gaussian_matrix(size: int, sigma: float, mode: str, truncate: float) -> Tensor:
    """The matrix (size, size), float64, of a blur along one axis, borders included."""
    blurred = gaussian_filter1d(np.eye(size), sigma, axis=0, mode=mode, truncate=truncate)
    return torch.from_numpy(blurred)


def gaussian(
    planes: Float[Tensor, "... h w"], sigma: float, *, mode: str = "nearest", truncate: float = 4
) -> Float[Tensor, "... h w"]:
    """Gaussian blur with standard deviation ``sigma`` pixels, as scipy defines borders and truncation.

    In float64, returned as float32: products of matrices add up in another order for another batch, and 8-bit values
    are cut off, so that a last bit of float32 would be seen.
    """
    down, across = (
        _gaussian_matrix(size, float(sigma), mode, truncate).to(planes.device) for size in planes.shape[-2:]
    )
    blurred: Tensor = down @ planes.double() @ across.T
    return blurred.float()


def convolve(images: Float[Tensor, "b c h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "b c h w"]:
    """Correlate with a symmetric kernel of odd size. Borders are mirrored without repeating the edge.

    By Fourier transform in float64, returned as float32.
    """
    height, width = images.shape[-2:]
    reach = len(kernel) // 2
    padded = F.pad(images.double(), (reach, reach, reach, reach), mode="reflect")
    size = (padded.shape[-2], padded.shape[-1])
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.double().to(images.device), s=size)
    whole: Tensor = torch.fft.irfft2(spectrum, s=size)
    return whole[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width].float()


def levels(images: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Whole numbers 0..255 of values in [0, 1] and beyond: cut off, not rounded, as the published code does."""
    return (255 * images.clamp(0, 1) + FORGIVEN).floor()


def motion(
    planes: Float[Tensor, "b c h w"], radius: int, sigma: float, degrees: Float[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """Blur each image along a direction of its own by a one-sided Gaussian, rounded to 8 bits.

    ImageMagick's motion blur: 2 radius + 1 weights at whole pixels, borders repeated.
    """
    batch, channels, height, width = planes.shape
    away = torch.arange(2 * radius + 1, dtype=torch.float64)
    weights = torch.exp(-(away**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    angle = degrees.double()[:, None] * (torch.pi / 180)
    steps = away.to(planes.device)
    down = torch.ceil(steps * angle.sin() - 0.5).long()
    right = torch.ceil(steps * angle.cos() - 0.5).long()
    rows, columns = torch.arange(height, device=planes.device), torch.arange(width, device=planes.device)
    flat, total = planes.flatten(2), torch.zeros_like(planes).flatten(2)
    for tap, weight in enumerate(weights.tolist()):
        if weight < ROUNDS_AWAY:
            break  # weights fall
        row = (rows + down[:, tap, None]).clamp(0, height - 1)
        column = (columns + right[:, tap, None]).clamp(0, width - 1)
        source = (row[:, :, None] * width + column[:, None]).view(batch, 1, -1).expand(-1, channels, -1)
        total += weight * flat.gather(2, source)
    return ((255 * total).round() / 255).view(planes.shape)


def zoomed(planes: Float[Tensor, "b c h w"], factor: float) -> Float[Tensor, "b c h w"]:
    """Enlarge the centre linearly to the whole image. The outer pixels of the cut-out keep their places."""
    height, width = planes.shape[-2:]
    cut = [int(np.ceil(size / factor)) for size in (height, width)]
    top, left = (height - cut[0]) // 2, (width - cut[1]) // 2
    inner = planes[..., top : top + cut[0], left : left + cut[1]]
    enlarged = (round(cut[0] * factor), round(cut[1] * factor))
    inner = F.interpolate(inner, enlarged, mode="bilinear", align_corners=True)
    top, left = (enlarged[0] - height) // 2, (enlarged[1] - width) // 2
    return inner[..., top : top + height, left : left + width]


def grey(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """The luma (ITU-R 601) of colour images; images of one channel are returned as they are."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def in_channels(colour: Float[Tensor, "b 3 h w"], channels: int) -> Float[Tensor, "b c h w"]:
    """Give an overlay as many channels as the images have."""
    return grey(colour) if channels == 1 else colour
