"""Input checks whose message names the value, the rule and the fix."""

import torch
from torch import Tensor


def check_unit_range(images: Tensor) -> None:
    """Refuse images outside [0, 1] or with NaN."""
    if images.numel() == 0:
        return
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):  # also true for NaN
        hint = "Divide 8-bit images by 255." if high > 2 else "Normalisation belongs inside the model."
        raise ValueError(f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]. {hint}")


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels outside 0 .. num_classes - 1."""
    if labels.numel() == 0:
        return
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 class indices, got {labels.dtype}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"label {wrong} is outside 0..{num_classes - 1}: the model has {num_classes} classes. "
            "Check that data and model belong together."
        )
