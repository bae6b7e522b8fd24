"""SGD with momentum, its parameter groups, and learning-rate schedules on absolute epochs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import nn
from torch.optim import SGD

Schedule: TypeAlias = Callable[[float], float]
"""Epochs since the start of the run (with fraction) -> learning rate."""


def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    decay_norm: bool,
    no_decay: Sequence[str] = (),
) -> SGD:
    """SGD over all parameters.

    Args:
        model: what to train.
        lr: learning rate; a schedule sets it anew before each step.
        momentum: of the velocity.
        nesterov: look ahead.
        weight_decay: L2 coefficient of kernels and matrices.
        decay_norm: decay one-dimensional parameters (biases, normalisation) as well, as the papers do.
        no_decay: do not decay parameters whose name contains one of these, whatever their shape.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        spared = any(part in name for part in no_decay) or (p.ndim <= 1 and not decay_norm)
        if p.requires_grad:
            (plain if spared else decayed).append(p)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return SGD([g for g in groups if g["params"]], lr=lr, momentum=momentum, nesterov=nesterov)


def schedule(
    name: str, *, lr: float, epochs: int, milestones: Sequence[float], gamma: float, warmup_epochs: float
) -> Schedule:
    """A learning rate for every moment of a run.

    Args:
        name: "piecewise" (times ``gamma`` after each milestone), "cosine" (to zero) or "constant".
        lr: peak rate.
        epochs: length of the whole run, all phases together.
        milestones: shares of ``epochs``; .75 of 80 epochs means from epoch 60 (counted from 0) on.
        gamma: factor at each milestone.
        warmup_epochs: linear rise to the peak at the start.
    """
    return partial(
        _rate,
        name=name,
        lr=lr,
        epochs=epochs,
        milestones=tuple(milestones),
        gamma=gamma,
        warmup_epochs=warmup_epochs,
    )


def _rate(
    epoch: float,
    *,
    name: str,
    lr: float,
    epochs: int,
    milestones: Sequence[float],
    gamma: float,
    warmup_epochs: float,
) -> float:
    if epoch < warmup_epochs:
        return lr * (epoch + 1e-3) / warmup_epochs  # not zero: the first step shall count
    if name == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / epochs)))
    if name == "piecewise":
        return float(lr * gamma ** sum(math.floor(epoch) >= m * epochs - 1e-9 for m in milestones))
    return lr
