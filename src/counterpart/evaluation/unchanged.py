"""Whether a model stays as it is while it is judged, which is looked at after every unit of the work."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from .weights import hash_of_state

WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The type that shows the bits of a value, by the bytes that the value takes."""


def remember(model: nn.Module) -> Callable[[], Bool[Tensor, ""]]:
    """A function that says whether all weights and buffers of a model have the bits that they have now.

    It compares with copies where the weights lie, and its answer lies there as well. A hash would need all of the
    weights on the host, for every unit of an evaluation anew.
    """
    plain, others = _sorted_out(model.state_dict())
    copies = {name: value.clone() for name, value in plain.items()}
    hashed = hash_of_state(others)

    def is_unchanged() -> Bool[Tensor, ""]:
        now, others_now = _sorted_out(model.state_dict())
        like_before = now.keys() == copies.keys() and all(
            value.dtype == copies[name].dtype and value.shape == copies[name].shape
            for name, value in now.items()
        )
        if not like_before or hash_of_state(others_now) != hashed:
            return torch.zeros((), dtype=torch.bool)
        if not now:
            return torch.ones((), dtype=torch.bool)
        # Bits are compared, because NaN equals nothing.
        same = [(_bits(value) == _bits(copies[name])).all() for name, value in now.items()]
        return torch.stack(same).all()

    return is_unchanged


def _sorted_out(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The entries of a model's state that are plain tensors, and all others, such as those of quantised layers."""
    plain = {name: value.detach() for name, value in state.items() if _is_plain(value)}
    return plain, {name: value for name, value in state.items() if name not in plain}


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _bits(value: Tensor) -> Tensor:
    return value.view(WHOLE_NUMBERS[value.element_size()]) if value.element_size() in WHOLE_NUMBERS else value
