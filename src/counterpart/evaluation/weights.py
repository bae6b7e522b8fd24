"""What identifies the weights of a model: a hash that is the same on every device."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def weights_hash(model: nn.Module) -> str:
    """The first twelve hex digits of a hash of a model's weights and buffers, the same on every device."""
    return hash_of_state(model.state_dict())


def hash_of_state(state: Mapping[str, Any]) -> str:
    """The same hash of some entries of a model's state."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        _digest_into(digest, name, value)
    return digest.hexdigest()[:12]


def _digest_into(digest: "hashlib._Hash", name: str, value: Any) -> None:
    """Add one entry of a model's state to a hash.

    The entry is a tensor, or what the state of a quantised layer holds: tuples of quantised tensors, types
    and None.
    """
    if isinstance(value, (tuple, list)):
        for number, member in enumerate(value):
            _digest_into(digest, f"{name}.{number}", member)
    elif not isinstance(value, Tensor):
        digest.update(f"{name} {value}".encode())
    else:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if value.is_quantized:
            digest.update(repr(_scales(value)).encode())
            value = value.int_repr()
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def _scales(value: Tensor) -> list[float]:
    """The scale and the zero point of a quantised tensor, or those of all its channels."""
    if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [value.q_scale(), value.q_zero_point()]
    scales, zeros = value.q_per_channel_scales(), value.q_per_channel_zero_points()
    return [*scales.tolist(), *zeros.tolist()]
