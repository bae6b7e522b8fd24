"""Optimisers and their parameter groups, and schedules of the learning rate on absolute epochs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ..errors import UserError

Schedule: TypeAlias = Callable[[float], float]
"""A function from the epochs since the start of the run, fractions included, to the learning rate."""


@runtime_checkable
class WithEncoder(Protocol):
    """A network that knows its encoder from what is new on top of it."""

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters of the encoder."""
        ...


def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    fused: bool | None = None,
    **grouping: Any,
) -> SGD:
    """The optimiser SGD over all parameters of a model.

    Args:
        model: the network to train.
        lr: the learning rate. ``set_rate`` sets it anew before each step.
        momentum: the share of the velocity that each step keeps.
        nesterov: whether the gradient counts as if it were taken one step of the velocity ahead.
        fused: whether all weights are moved by one kernel; by default torch chooses.
        grouping: the weight decay, which is added to the gradient, and the other options of ``group_parameters``.
    """
    groups = group_parameters(model, **grouping)
    return SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=fused)


def adamw(model: nn.Module, *, lr: float, fused: bool | None = None, **grouping: Any) -> AdamW:
    """The optimiser AdamW over all parameters of a model, with torch's betas 0.9 and 0.999.

    Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2, as torch has it.

    Args:
        model: the network to train.
        lr: the learning rate. ``set_rate`` sets it anew before each step.
        fused: whether all weights are moved by one kernel; by default torch chooses.
        grouping: the weight decay, of which each step takes the share lr from the weights, past the gradient
            and its averages; and the other options of ``group_parameters``.
    """
    return AdamW(group_parameters(model, **grouping), lr=lr, fused=fused)


def group_parameters(
    model: nn.Module,
    *,
    weight_decay: float,
    decay_norm: bool,
    no_decay: Sequence[str] = (),
    encoder_scale: float = 1.0,
) -> list[dict[str, Any]]:
    """The parameters that are trained, in groups of the same weight decay and the same scale of the learning rate.

    A checkpoint holds the optimiser's state by the places of the parameters in these groups.

    Args:
        model: the network to train.
        weight_decay: the weight decay of kernels and matrices.
        decay_norm: whether one-dimensional parameters (biases, normalisation) decay as well, as in the
            papers.
        no_decay: pieces of names; a parameter whose name contains one of them does not decay, whatever its
            shape.
        encoder_scale: the encoder's learning rate divided by that of all other parameters.

    Returns:
        The groups for an optimiser of torch. Each says its ``scale``, which ``set_rate`` multiplies rates by.

    Raises:
        UserError: the encoder shall have a rate of its own, and the model has none that is told from its head.
    """
    inside = (
        set() if encoder_scale == 1 else {id(parameter) for parameter in _encoder_of(model, encoder_scale)}
    )
    groups: dict[tuple[float, float], dict[str, Any]] = {
        (scale, decay): {"params": [], "weight_decay": decay, "scale": scale}
        for scale in dict.fromkeys((encoder_scale, 1.0))
        for decay in dict.fromkeys((weight_decay, 0.0))
    }
    for name, parameter in model.named_parameters():
        spared = any(part in name for part in no_decay) or (parameter.ndim <= 1 and not decay_norm)
        scale = encoder_scale if id(parameter) in inside else 1.0
        if parameter.requires_grad:
            groups[scale, 0.0 if spared else weight_decay]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of each group of ``group_parameters``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def _encoder_of(model: nn.Module, scale: float) -> list[nn.Parameter]:
    """The parameters of a model's encoder, which are some of its parameters and not all of them."""
    encoder = model.encoder_parameters() if isinstance(model, WithEncoder) else []
    if not 0 < len(encoder) < len(list(model.parameters())):
        raise UserError(
            f"optimizer.encoder_scale {scale:g}: {type(model).__name__} has no encoder beside a head. Leave it at 1, "
            "or give your network a method encoder_parameters() that lists the encoder's."
        )
    return encoder


def schedule(
    name: str,
    *,
    lr: float,
    epochs: int,
    milestones: Sequence[float],
    gamma: float,
    warmup_epochs: float,
    warmup_steps: int = 0,
    steps: int = 1,
) -> Schedule:
    """A function that gives the learning rate for every moment of a run.

    Args:
        name: "piecewise" (times ``gamma`` after each milestone), "cosine" (falls to zero) or "constant". The cosine
            falls within an epoch as well. Differs from the code of the part-model paper, where it falls after each.
        lr: the highest learning rate.
        epochs: the number of epochs of the whole run, all phases together.
        milestones: the milestones as shares of ``epochs``; .75 of 80 epochs means from epoch 60 (counted from
            0) on.
        gamma: the factor that the rate is multiplied by at each milestone.
        warmup_epochs: the number of epochs at the start in which the rate rises in a line to ``lr``.
        warmup_steps: the number of steps at the start in which it does so: step t of n, counted from 0, takes
            ``lr (t + 1) / (n + 1)``.
        steps: the number of steps in an epoch.
    """
    return partial(
        _rate,
        name=name,
        lr=lr,
        epochs=epochs,
        milestones=tuple(milestones),
        gamma=gamma,
        warmup_epochs=warmup_epochs,
        warmup_steps=warmup_steps,
        steps=steps,
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
    warmup_steps: int,
    steps: int,
) -> float:
    if (step := round(epoch * steps)) < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    if epoch < warmup_epochs:
        return lr * (epoch + 1e-3) / warmup_epochs  # above zero, so that the first step counts
    if name == "cosine":
        return lr * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / epochs)))
    if name == "piecewise":
        return float(lr * gamma ** sum(math.floor(epoch) >= m * epochs - 1e-9 for m in milestones))
    return lr
