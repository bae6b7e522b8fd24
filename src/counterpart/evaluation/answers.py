"""What the original model answers: in eval mode, in exact float32, whatever attacks searched on."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .. import devices
from ..budget import Budget
from ..errors import NotFinite
from ..models.modes import eval_mode


@contextmanager
def as_judged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A block in which the model judges: in eval mode, in exact float32 and without autocast.

    The modes that the model had before are put back afterwards.
    """
    with eval_mode(model), torch.autocast(device.type, enabled=False), devices.exact_float32():
        yield


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """The logits (B, K) that the original model gives to images (B, C, H, W).

    Raises:
        ValueError: the model returns something else than a tensor of B rows of logits.
        NotFinite: a logit is NaN or infinite.
    """
    with as_judged(model, images.device):
        logits = model(images.float())
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model returns {type(logits).__name__}; expected a tensor of ({len(images)}, K) logits."
        )
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"the model returns shape {tuple(logits.shape)}; expected ({len(images)}, K) logits."
        )
    if not bool(logits.isfinite().all()):
        raise NotFinite("the model returns logits that are not finite; it cannot be evaluated.")
    return logits


def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """The classes (B,) that the original model answers for images (B, C, H, W)."""
    return logits_of(model, images).argmax(dim=1)


def judge(
    model: nn.Module, attacked: Tensor, clean: Tensor, labels: Tensor, budget: Budget
) -> tuple[Tensor, Tensor]:
    """Whether each attacked image counts as a success (B,), and the class that the model answers for it (B,).

    An image counts if the model answers another class than its label and the budget allows the change.
    """
    answers = predictions(model, attacked)
    return (answers != labels) & budget.contains(attacked, clean), answers
