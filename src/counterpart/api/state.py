"""Everything as it was: what a public function of this room puts back when it returns."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..models.modes import eval_mode


@contextmanager
def left_as_found(model: object = None) -> Iterator[None]:
    """Put back the number of threads, torch's generator and gradient mode, and the modes of a model's parts."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            if isinstance(model, nn.Module):
                with eval_mode(model):
                    yield
            else:
                yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def nest(changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings with dots in their names as nested ones: {"train.epochs": 5} is {"train": {"epochs": 5}}."""
    nested: dict[str, Any] = {}
    for key, value in (changes or {}).items():
        *heads, leaf = key.split(".")
        target = nested
        for head in heads:
            target = target.setdefault(head, {})
            if not isinstance(target, dict):
                raise UserError(f"changes: {key} lies within {head}, which was given a value.")
        if isinstance(value, Mapping) and isinstance(target.get(leaf), dict):
            target[leaf] = {**target[leaf], **value}
        else:
            target[leaf] = dict(value) if isinstance(value, Mapping) else value
    return nested
