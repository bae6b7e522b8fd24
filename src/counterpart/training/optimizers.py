"""SGD with momentum and its parameter groups, and schedules of the learning rate on absolute epochs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import nn
from torch.optim import SGD

Schedule: TypeAlias = Callable[[float], float]
"""A function from the epochs since the start of the run, fractions included, to the learning rate."""


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
    """The optimiser SGD over all parameters of a model.

    Args:
        model: the network to train.
        lr: the learning rate. A schedule sets it anew before each step.
        momentum: the share of the velocity that each step keeps.
        nesterov: whether the gradient counts as if it were taken one step of the velocity ahead.
        weight_decay: the L2 coefficient of kernels and matrices.
        decay_norm: whether one-dimensional parameters (biases, normalisation) decay as well, as in the
            papers.
        no_decay: pieces of names; a parameter whose name contains one of them does not decay, whatever its
            shape.
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
    """A function that gives the learning rate for every moment of a run.

    Args:
        name: "piecewise" (times ``gamma`` after each milestone), "cosine" (falls to zero) or "constant".
        lr: the highest learning rate.
        epochs: the number of epochs of the whole run, all phases together.
        milestones: the milestones as shares of ``epochs``; .75 of 80 epochs means from epoch 60 (counted from
            0) on.
        gamma: the factor that the rate is multiplied by at each milestone.
        warmup_epochs: the number of epochs at the start in which the rate rises in a line to ``lr``.
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
        return lr * (epoch + 1e-3) / warmup_epochs  # above zero, so that the first step counts
    if name == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / epochs)))
    if name == "piecewise":
        return float(lr * gamma ** sum(math.floor(epoch) >= m * epochs - 1e-9 for m in milestones))
    return lr
