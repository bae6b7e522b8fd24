"""Digital changes: contrast, elastic transforms, coarse pixels, JPEG, saturation."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ...seeding import Keys
from ..decoding import WORKERS
from .constants import Strengths
from .filters import gaussian


def contrast(images: Float[Tensor, "b c h w"], factor: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Distances from each channel's mean shrink by a factor."""
    # Sums of whole numbers, so that their order does not matter.
    mean = (255 * images).round().sum(dim=(2, 3), keepdim=True, dtype=torch.float64)
    mean = (mean / (255 * images.shape[2] * images.shape[3])).float()
    return (images - mean) * factor + mean


def saturate(images: Float[Tensor, "b 3 h w"], strength: Strengths, keys: Keys) -> Float[Tensor, "b 3 h w"]:
    """(factor, added) change the saturation of HSV; grey pixels have hue 0, which is red, as published."""
    factor, added = strength
    value, darkest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    distance = value - darkest
    coloured = distance > 0
    saturation = torch.where(coloured, distance / value, 0.0)
    wanted = (saturation * factor + added).clamp(0, 1)
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device).view(3, 1, 1)
    share = torch.where(
        coloured, (value - images) / distance, red
    )  # 0 at the brightest channel, 1 at the darkest
    return value * (1 - wanted * share)


def pixelate(images: Float[Tensor, "b c h w"], scale: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Means over boxes, each shown as a box again: Pillow's BOX filter, columns first, rounded to 8 bits each time."""
    levels = (255 * images).round().long()
    for axis in (3, 2):
        size = levels.shape[axis]
        boxes = int(size * scale)
        edges = torch.tensor([int(i * size / boxes + 0.5) for i in range(boxes + 1)], device=images.device)
        sums = F.pad(levels.transpose(3, axis).cumsum(3), (1, 0)).index_select(3, edges).diff(dim=3)
        counts = edges.diff()
        levels = ((2 * sums + counts) // (2 * counts)).transpose(3, axis)
    for axis, size in ((3, images.shape[3]), (2, images.shape[2])):
        box_of_pixel = torch.tensor([int((i + 0.5) * levels.shape[axis] / size) for i in range(size)])
        levels = levels.index_select(axis, box_of_pixel.to(images.device))
    return levels.float() / 255


def jpeg_compression(images: Float[Tensor, "b c h w"], quality: int, keys: Keys) -> Float[Tensor, "b c h w"]:
    """To JPEG of a quality and back, by Pillow; image by image, in several threads."""
    pixels = (255 * images).round().byte().cpu()
    with ThreadPoolExecutor(WORKERS) as pool:
        decoded = list(pool.map(lambda image: _through_jpeg(image, quality), pixels))
    return torch.stack(decoded).to(images.device).float() / 255


def _through_jpeg(pixels: UInt8[Tensor, "c h w"], quality: int) -> UInt8[Tensor, "c h w"]:
    file = io.BytesIO()
    array = pixels.permute(1, 2, 0).numpy()
    Image.fromarray(array[..., 0] if len(pixels) == 1 else array).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return torch.from_numpy(np.array(image)).view(*array.shape).permute(2, 0, 1)


def elastic_transform(
    images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys
) -> Float[Tensor, "b c h w"]:
    """(alpha, sigma, jitter): a random affine map, then a smooth random displacement of every pixel.

    The affine map moves three corners of the middle square by up to the jitter; displacements are uniform noise,
    blurred by sigma, times alpha. Differs from the published code in sampling at exact places: OpenCV's warp
    rounds them to 1/32 of a pixel.
    """
    alpha, sigma, jitter = strength
    height, width = images.shape[-2:]
    device = images.device
    centre, reach = torch.tensor([width // 2, height // 2], dtype=torch.float64), min(height, width) // 3
    corners = centre + reach * torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float64)
    corners = corners.to(device).expand(len(images), 3, 2)
    moved = corners + jitter * (2 * keys.uniform(0, (3, 2)).double() - 1)
    ones = torch.ones_like(moved[..., :1])
    back = torch.linalg.solve(
        torch.cat([moved, ones], dim=2), corners
    )  # (B, 3, 2): moved places -> places before
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y, x = (grid.double() for grid in torch.meshgrid(rows, columns, indexing="ij"))
    before = torch.stack([x, y, torch.ones_like(x)], dim=2).view(1, -1, 3) @ back
    warped = _sample(images, before.view(-1, height, width, 2), mirror_at_centres=True)
    if alpha == 0:
        return warped
    noise = 2 * keys.uniform(1, (2, height, width)).double() - 1
    shift = alpha * gaussian(noise, sigma, mode="reflect", truncate=3).permute(0, 2, 3, 1)
    return _sample(warped, torch.stack([x, y], dim=2) + shift, mirror_at_centres=False)


def _sample(
    images: Float[Tensor, "b c h w"], places: Float[Tensor, "b h w 2"], mirror_at_centres: bool
) -> Float[Tensor, "b c h w"]:
    """Values at places (x, y) in pixels, bilinear; borders mirrored at the outermost centres or at the edges."""
    size = torch.tensor([images.shape[-1], images.shape[-2]], dtype=torch.float64, device=images.device)
    grid = 2 * places / (size - 1) - 1 if mirror_at_centres else (2 * places + 1) / size - 1
    return F.grid_sample(
        images, grid.float(), mode="bilinear", padding_mode="reflection", align_corners=mirror_at_centres
    )
