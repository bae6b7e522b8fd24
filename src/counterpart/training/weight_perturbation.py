"""Adversarial weight perturbation: a step's gradient is taken where the weights are worst, not where they are.

Wu, Xia and Wang 2020, arXiv 2004.05884: the worst weights are sought as adversarial images are, by one step along the
gradient of the same loss, in a ball whose radius in each layer is a share ``gamma`` of the norm of its weights.

    with buffers_kept(model):
        ...                               # a forward and a backward pass: the way up
    with adversarial_weights(model, gamma):
        ...                               # another: the gradient to step by

Differs from the published code, which lets a second network take an SGD step of the negative loss and adds what that
moved, rescaled: up to rounding the same place, since the step's length cancels. It also takes the optimiser's step at
the perturbed weights, so that weight decay sees them, and subtracts the perturbation afterwards, to the last bit or
not. Here the weights are put back first.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def adversarial_weights(model: nn.Module, gamma: float) -> Iterator[None]:
    """A block in which ``w + gamma ||w|| g / ||g||`` stands for every kernel and matrix ``w``.

    After the block each ``w`` is back, bit for bit.

    Args:
        model: the network. The ``grad`` of a parameter is ``g``; where ``g`` is zero, ``w`` stays.
        gamma: the share of the norm, which is 5e-3 in the paper and in its code for TRADES, and 1e-2 in its
            code for AT.

    As published, weights of one dimension (normalisation), biases and other parameters stay.
    """
    moved = [
        p for name, p in model.named_parameters() if "weight" in name and p.ndim > 1 and p.grad is not None
    ]
    originals = [p.detach().clone() for p in moved]
    try:
        for weight in moved:
            _ascend(weight, gamma)
        yield
    finally:
        _put_back(moved, originals)


@torch.no_grad()
def _ascend(weight: Tensor, gamma: float) -> None:
    gradient = weight.grad
    assert gradient is not None
    length = torch.linalg.vector_norm(gradient)
    unit = gradient / length.clamp_min(torch.finfo(length.dtype).tiny)  # zero stays zero, NaN stays NaN
    weight.add_(unit * (gamma * torch.linalg.vector_norm(weight)))


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """A block after which batch-norm statistics are as before it, whatever passes it made.

    So the statistics follow the passes with perturbed weights alone, as in the published code.
    """
    buffers = list(model.buffers())
    originals = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        _put_back(buffers, originals)


@torch.no_grad()
def _put_back(tensors: Sequence[Tensor], originals: Sequence[Tensor]) -> None:
    for tensor, value in zip(tensors, originals, strict=True):
        tensor.copy_(value)
