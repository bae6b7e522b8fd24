"""A model that is used as it is, for a while: what had to be changed for that is put back."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from .modes import eval_mode


@contextmanager
def borrowed(model: nn.Module, fused: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Inside the block the model is in eval mode, and its parameters take no gradients.

    A graph that was made inside leads to the images alone, and may be followed after the block has ended.

    Args:
        model: the model, whose modes and parameters are put back at the end, whatever happens.
        fused: the modules of it that shall attend by a fused kernel inside the block.
    """
    needs = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    kernels = [(module, module.fused_attn) for module in fused]
    try:
        for parameter, _ in needs:
            parameter.requires_grad_(False)
        for module in fused:
            module.fused_attn = True  # type: ignore[assignment]  # a module's attributes are typed as tensors
        with eval_mode(model):
            yield
    finally:
        for parameter, needed in needs:
            parameter.requires_grad_(needed)
        for module, kernel in kernels:
            module.fused_attn = kernel
