"""Common corruptions: the 19 of CIFAR-10-C and the 15 of ImageNet-C at five severities, made on the fly.

Source: Hendrycks and Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations" (ICLR). Differs from the published files in its draws, which are seeded per image, and so in every image
of a corruption that draws; in details that stand at ``elastic_transform`` and ``spatter``; and above 64 pixels in that
ImageNet-C's files are JPEG of quality 85. Slips of the published code that its images show are kept (``glass_blur``,
``frost``, ``spatter``), so that each severity is as strong as theirs. Results on these images are no results on the
published files: say which you show.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...checks import check_unit_range
from ...seeding import Keys
from ..transforms import as_floats
from . import blur, digital, noise, spatter, weather
from .constants import CONSTANTS
from .filters import levels
from .weather import read_textures

# The 15 of the benchmark in its order, and the four that it keeps for validation.
BENCHMARK = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # pixels: up to this side the strengths of CIFAR are used
AT_ONCE = (
    2**20
)  # values that are corrupted at once; at 2^22 it takes 1.6 times as long, for fresh memory in every step
LEAST = 16  # pixels a side; in smaller images blurs would reach across the whole image

_Corruption = Callable[..., Tensor]
CORRUPTIONS: dict[str, _Corruption] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": spatter.spatter,
    "saturate": digital.saturate,
}


def corrupt(
    images: Float[Tensor, "b c h w"],
    name: str,
    severity: int,
    keys: Keys,
    *,
    constants: Literal["cifar", "imagenet"] | None = None,
    frost: Sequence[Tensor] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Corrupt images, and return 8-bit images again: every value is k / 255.

    As published, images are 8-bit before and after, and values are cut off, not rounded, to 8 bits (motion blur,
    pixelate and JPEG round by themselves).

    Args:
        images: in [0, 1], of 1 or 3 channels and at least 16 pixels a side; rounded to 8 bits first.
        name: of ``CORRUPTIONS``.
        severity: 1 to 5.
        keys: identifies each image. The random numbers of an image depend on its key, the corruption and the severity
            alone.
        constants: strengths for images of 32 or of 224 pixels; by default those of CIFAR up to 64 pixels a side and
            those of ImageNet above.
        frost: the textures of frost, as ``read_textures`` returns them.

    Raises:
        ValueError: an unknown name or severity, images that the corruption is not made for, or no textures.
    """
    if reason := unfit(name, images.shape[1], bool(frost)):
        raise ValueError(f"{name}: {reason}.")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} is none of 1 to 5.")
    if images.shape[1] not in (1, 3) or min(images.shape[-2:]) < LEAST:
        shape = "x".join(map(str, images.shape[1:]))
        raise ValueError(f"corruptions need 1 or 3 channels of {LEAST} pixels a side or more, got {shape}.")
    check_unit_range(images)
    strengths = CONSTANTS[constants or constants_for(*images.shape[-2:])][name]
    function = CORRUPTIONS[name]
    if frost is not None and name == "frost":
        function = partial(function, textures=frost)
    exact, keys = as_floats((255 * images).round().byte()).contiguous(), keys.fold(name, severity)
    size = max(1, AT_ONCE // max(1, exact[:1].numel()))
    parts = [
        function(exact[i : i + size], strengths[severity - 1], keys[i : i + size])
        for i in range(0, len(exact), size)
    ]
    return as_floats(levels(torch.cat(parts)).byte()) if parts else exact


def unfit(name: str, channels: int, textures: bool) -> str | None:
    """Say why a corruption cannot be applied to images of so many channels; return None if it can.

    Raises:
        ValueError: no corruption has this name.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"no corruption is called {name!r}; there are {', '.join(CORRUPTIONS)}.")
    if name == "frost" and not textures:
        return "there are no frost textures"
    if name == "saturate" and channels == 1:
        return "images of one channel have no colour"
    return None


def constants_for(height: int, width: int) -> Literal["cifar", "imagenet"]:
    """The data set, cifar or imagenet, whose strengths images of this size get by default."""
    return "cifar" if max(height, width) <= SMALL else "imagenet"


__all__ = [
    "BENCHMARK",
    "CONSTANTS",
    "CORRUPTIONS",
    "EXTRA",
    "SEVERITIES",
    "constants_for",
    "corrupt",
    "read_textures",
    "unfit",
]
