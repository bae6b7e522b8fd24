"""Handwritten digits: 1,797 real scans that come with scikit-learn, so no download is needed."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered

DEFAULT_SIZE = 16  # at the scans' own 8 pixels the maps of a network with strides mean nothing
TEST_SHARE = 400 / 1797


def load_digits(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """The 8 x 8 scans, scaled up bilinearly; 400 test images, the same in every run.

    Args:
        root: not needed; the scans are part of scikit-learn.
        validation: share of the other 1,397 images that is kept for validation.
        size: side in pixels; 16 by default.
        download: not needed.

    Source: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI repository (test part).
    """
    from sklearn.datasets import load_digits as load_scans

    scans = load_scans()
    values = torch.from_numpy(scans.images).float()[:, None]  # (N, 1, 8, 8), 0 .. 16
    labels = torch.from_numpy(scans.target).long()
    size = size or DEFAULT_SIZE
    everything = ImageSet(
        name="digits",
        split="train",
        classes=tuple(str(name) for name in scans.target_names),
        labels=labels,
        index=torch.arange(len(labels)),
        fingerprint=content_fingerprint([values, labels]),
        shape=(1, size, size),
        pixels=_scaled(values, size),
        names=numbered("all", len(labels)),
    )
    rest, test = hold_out(everything, TEST_SHARE, "test")
    train, held = hold_out(rest, validation, "validation")
    return Splits(train=train, validation=held, test=test)


def _scaled(values: Tensor, size: int) -> Tensor:
    """Scale scans of 8 pixels with values from 0 to 16 to uint8 images of ``size`` pixels."""
    scaled = F.interpolate(values, (size, size), mode="bilinear", antialias=True)
    return (scaled * (255 / 16)).round().clamp(0, 255).byte()
