"""Weather: snow, frost, fog, brightness."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...errors import UserError
from ...seeding import Keys
from ..decoding import decode
from .constants import Strengths
from .filters import grey, in_channels, levels, motion, zoomed

TEXTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")


def snow(images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Flakes: (mean, sd, zoom, threshold, radius, sigma, mix).

    Normal noise is enlarged and cut off below the threshold, and blurred along a steep direction; it and its half turn
    are added to the image, of which a share (1 - mix) is whitened.
    """
    mean, sd, zoom, threshold, radius, sigma, mix = strength
    flakes = zoomed(mean + sd * keys.normal(0, (1, *images.shape[-2:])), zoom)
    flakes = levels(torch.where(flakes < threshold, 0.0, flakes)) / 255
    flakes = motion(flakes, int(radius), sigma, 90 * keys.uniform(1, (1,))[:, 0] - 135)
    whitened = torch.maximum(images, 1.5 * grey(images) + 0.5)
    return mix * images + (1 - mix) * whitened + flakes + flakes.flip((2, 3))


def frost(
    images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys, textures: Sequence[Tensor]
) -> Float[Tensor, "b c h w"]:
    """A random part of one of the textures, each (3, h, w) uint8: (share of image, share of texture, shrink).

    Raises:
        ValueError: an image is not smaller than every texture.
    """
    image_share, texture_share, shrink = strength[0], strength[1], int(strength[2])
    height, width = images.shape[-2:]
    overlay = torch.empty((len(images), 3, height, width), device=images.device)
    choice = keys.integers(0, len(textures))
    for number, texture in enumerate(textures):
        small = texture[:, shrink // 2 :: shrink, shrink // 2 :: shrink].to(images.device)
        spare = small.shape[1] - height, small.shape[2] - width
        if min(spare) < 1:
            raise ValueError(
                f"frost needs images smaller than its textures, one of which is {small.shape[2]} x {small.shape[1]} "
                f"here: got {width} x {height}. Resize the images, or leave frost out."
            )
        these = choice == number
        rows = keys[these].integers(0, spare[0], stream=1)[:, None] + torch.arange(
            height, device=images.device
        )
        columns = keys[these].integers(0, spare[1], stream=2)[:, None] + torch.arange(
            width, device=images.device
        )
        overlay[these] = small[:, rows[:, :, None], columns[:, None]].transpose(0, 1).float()
    return image_share * images + texture_share * in_channels(overlay, images.shape[1]) / 255


def read_textures(folder: Path) -> list[UInt8[Tensor, "3 h w"]]:
    """The five textures of the published images; a sixth lies beside them, which the published draw never reaches.

    Raises:
        UserError: one is missing or damaged.
    """
    for name in TEXTURES:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name} is missing: frost needs {TEXTURES[0]} to {TEXTURES[-1]} of the published code "
                "(see docs/datasets.md)."
            )
    return [decode(folder / name) for name in TEXTURES]


def fog(images: Float[Tensor, "b c h w"], strength: Strengths, keys: Keys) -> Float[Tensor, "b c h w"]:
    """Clouds of (strength, decay) are added, and the sum scaled back to the image's maximum."""
    added, decay = strength
    height, width = images.shape[-2:]
    clouds = _plasma(keys, max(height, width), decay)[:, None, :height, :width]
    brightest = images.amax(dim=(1, 2, 3), keepdim=True)
    return (images + added * clouds) * brightest / (brightest + added)


def _plasma(keys: Keys, size: int, decay: float) -> Float[Tensor, "b n n"]:
    """Height maps in [0, 1] by the diamond-square algorithm, n the next power of two from ``size`` on."""
    n = 1 << (size - 1).bit_length()
    heights = torch.zeros(len(keys), n, n, dtype=torch.float64, device=keys.index.device)
    step, wobble, draw = n, 100.0, 0

    def moved(total: Tensor) -> Tensor:
        nonlocal draw
        draw += 1
        noise = 2 * keys.uniform(draw, tuple(total.shape[1:])).double() - 1
        return total / 4 + wobble * wobble * noise

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = moved(pairs + pairs.roll(-1, 2))
        centres = heights[:, half::step, half::step]
        above, left = centres + centres.roll(1, 1), centres + centres.roll(1, 2)
        heights[:, ::step, half::step] = moved(above + corners + corners.roll(-1, 2))
        heights[:, half::step, ::step] = moved(left + corners + corners.roll(-1, 1))
        step, wobble = half, wobble / decay
    heights = heights - heights.amin(dim=(1, 2), keepdim=True)
    return (heights / heights.amax(dim=(1, 2), keepdim=True)).float()


def brightness(images: Float[Tensor, "b c h w"], added: float, keys: Keys) -> Float[Tensor, "b c h w"]:
    """The value of HSV rises: hue and saturation stay, so that all channels grow by one factor."""
    value = images.amax(dim=1, keepdim=True)
    raised = (value + added).clamp(max=1)
    return torch.where(value > 0, images * (raised / value), raised)
