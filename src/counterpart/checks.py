"""Input checks whose message names the value, the rule and the fix."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

_PASSED = ContextVar("_PASSED", default=False)


@contextmanager
def after_the_door() -> Iterator[None]:
    """A block in which images and labels count as checked: whoever enters it has seen to them before."""
    token = _PASSED.set(True)
    try:
        yield
    finally:
        _PASSED.reset(token)


def _is_over() -> bool:
    """Whether nothing is to be checked here: in that block, and in compiled code, which cannot read values."""
    return torch.compiler.is_compiling() or _PASSED.get()


def check_unit_range(images: Tensor) -> None:
    """Refuse images outside [0, 1] or with NaN, unless they were checked before."""
    if images.numel() == 0 or _is_over():
        return
    low, high = torch.stack(images.aminmax()).tolist()  # together, because it waits for the device
    if not (low >= 0 and high <= 1):  # also true for NaN
        hint = "Divide 8-bit images by 255." if high > 2 else "Normalisation belongs inside the model."
        raise ValueError(f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]. {hint}")


def check_labels(labels: Tensor, num_classes: int, *, name: str = "label") -> None:
    """Refuse labels outside 0 .. num_classes - 1, unless they were checked before."""
    if labels.numel() == 0 or _is_over():
        return
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 class indices, got {labels.dtype}.")
    low, high = torch.stack(labels.aminmax()).tolist()  # together, because it waits for the device
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{name} {wrong} is outside 0..{num_classes - 1}: the model has {num_classes} classes. "
            "Check that data and model belong together."
        )


def class_indices(labels: Any, count: int, *, name: str = "labels") -> Int[Tensor, " b"]:
    """Labels as (B,) int64, from whole numbers of any type, also as a list or an array.

    Args:
        labels: one class for each image.
        count: B, how many images there are.
        name: what the labels are called in errors.

    Raises:
        ValueError: another shape or type; the sentence says what to pass instead.
    """
    labels = torch.as_tensor(labels)
    shape = tuple(labels.shape)
    if shape == (count, 1):
        raise ValueError(f"{name} have shape {shape}, expected ({count},): pass {name}[:, 0].")
    if labels.ndim == 2 and len(labels) == count:
        several = bool((labels != 0).sum(dim=1).gt(1).any())
        if several:
            raise ValueError(
                f"{name} of shape {shape} give an image several classes: multi-label models have no single right "
                "answer, and are not supported. Expected one class index for each image."
            )
        raise ValueError(
            f"{name} have shape {shape}, expected ({count},): pass {name}.argmax(dim=1) of one-hot rows."
        )
    if shape != (count,):
        raise ValueError(
            f"{name} have shape {shape} for {count} images: expected one class index for each image."
        )
    if labels.dtype == torch.bool or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"{name} are {labels.dtype}, expected whole numbers: pass {name}.long() if they are indices."
        )
    indices: Tensor = labels.long()
    return indices
