"""A copy of a model for attacks to work on: without its owner's hooks and wrappers, in a memory layout of its own."""

from collections import OrderedDict
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from .folding import state_of
from .forms import has_hooks, holds_hooks
from .random_passes import generators_of


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, ``DataParallel`` and their kind, which compute what it does."""
    while True:
        inside = getattr(model, "_orig_mod", None)
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inside = model.module
        if not isinstance(inside, nn.Module):
            return model
        model = inside


def bare_copy(model: nn.Module) -> nn.Module:
    """A copy without hooks: they belong to the model's owner, who wants to see the model's passes only."""
    memo: dict[int, Any] = {}
    if generators_of(model):
        raise ValueError(
            "the model holds random generators, from which a copy would draw apart (form='original' makes no copy)."
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError("TorchScript cannot be copied into a view (form='original' makes no copy).")
        plain_tensors = [key for key, value in vars(module).items() if isinstance(value, Tensor)]
        if plain_tensors and has_hooks(module):  # a copy without the hooks would keep them for ever
            raise ValueError(
                f"hooks of {name or type(module).__name__} make its {plain_tensors[0]} anew in every pass, as pruning, "
                "weight norm and spectral norm do, and no copy follows them (form='original' makes no copy)."
            )
        for key, value in vars(module).items():
            if holds_hooks(key, value):
                memo[id(value)] = OrderedDict()
    return deepcopy(model, memo)


def set_layout(copy: nn.Module, trunk: nn.Module, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """This layout, and ``dtype`` in the trunk except in its batch norms, which take mixed input.

    Changes each tensor's data and not the tensor, because the trunk's graph and the copy hold the same ones.
    """
    exact = {
        id(tensor)
        for module in trunk.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for tensor in state_of(module).values()
    }
    for tensor in state_of(trunk).values():
        if tensor.is_floating_point() and id(tensor) not in exact:
            tensor.data = tensor.data.to(dtype)
    for tensor in state_of(copy).values():
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
