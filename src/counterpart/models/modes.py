"""Eval mode for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(*models: object) -> Iterator[None]:
    """Inside the block the models are in eval mode; afterwards each of their modules has the mode that it had.

    Args:
        models: those that are an ``nn.Module`` are put into eval mode, unless they are in it already.
    """
    modules = [(model, list(model.modules())) for model in models if isinstance(model, nn.Module)]
    modes = [(module, module.training) for _, inner in modules for module in inner]
    try:
        for model, inner in modules:
            if any(module.training for module in inner):
                model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
