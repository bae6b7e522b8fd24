"""Gradients through functions that have none: rounding, JPEG, a lookup, anything under ``no_grad``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class StraightThrough(nn.Module):
    """The module that ``straight_through`` makes."""

    def __init__(
        self, function: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None
    ) -> None:
        super().__init__()
        self.function, self.stand_in = function, backward

    def forward(self, values: Tensor) -> Tensor:
        """The function's value, to the last bit, with the gradient of its stand-in."""
        with torch.no_grad():
            value = self.function(values)
        smooth = values if self.stand_in is None else self.stand_in(values)
        if value.shape != smooth.shape:
            raise ValueError(
                f"the function turns shape {tuple(values.shape)} into {tuple(value.shape)}, its stand-in in the "
                f"backward pass gives {tuple(smooth.shape)}: give backward= a differentiable function that fits."
            )
        return value.detach() + (smooth - smooth.detach())  # adds exactly 0


def straight_through(
    function: Callable[[Tensor], Tensor], *, backward: Callable[[Tensor], Tensor] | None = None
) -> nn.Module:
    """Make a module that computes ``function`` and has the gradient of something smoother, which attacks can climb.

    Backward pass differentiable approximation (BPDA): Athalye et al. 2018, arXiv 1802.00420, section 4.1. An example is
    ``nn.Sequential(straight_through(lambda x: (255 * x).round() / 255), network)``.

    Args:
        function: what the forward pass computes; it may round, detach or leave torch altogether.
        backward: a differentiable function whose gradient, at the same values, is taken instead. By default the
            identity, for functions that change their input little and keep its shape.

    Returns:
        A module without weights, for ``nn.Sequential`` or to be called within a forward.

    Raises:
        ValueError: when called, where the function and its stand-in return different shapes.
    """
    return StraightThrough(function, backward)
