"""Checkpoints: safetensors files, each of which holds all that a run needs to go on, written atomically.

The JSON that belongs to the tensors lies in the file's own header, so that one rename replaces both.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from .. import records
from ..checksums import save_tensors
from ..errors import UserError
from ..models.hub import read_metadata, read_weights
from ..parsing import parse_json
from ..rundir import write_atomically

WEIGHTS = ("model.", "ema.")  # how the names of tensors begin that are needed once a run is finished


@dataclass
class State:
    """The point that a training run has reached.

    Attributes:
        epoch: the current epoch, counted from 0. It is the number of epochs when the run is finished.
        step: the number of this epoch's batches that are done.
        seconds: the seconds spent on this epoch so far, all starts of the run together.
        totals: sums over this epoch's images, for its record.
        best_phase: the number of the phase that the best weights belong to. A new phase starts afresh, so
            that the best weights of a PART run are never those of its burn-in.
        best_score: the (robust, clean) validation accuracy of the best weights.
        validated: the validation accuracies after each epoch of the current phase: clean, robust, and where
            the phase measures it, robust under its mask.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    totals: dict[str, float] = field(default_factory=dict)
    best_phase: int = -1
    best_score: list[float] = field(default_factory=list)
    validated: list[list[float]] = field(default_factory=list)


def save(
    path: Path,
    state: State,
    about: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    ema: AveragedModel | None,
    maps: Tensor | None,
) -> None:
    """Write the whole state of a run into a checkpoint file."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{slot}": value for slot, value in slots.items() if value is not None}
    if ema is not None:
        tensors |= {f"ema.{name}": value for name, value in ema.state_dict().items()}
    if maps is not None:
        tensors["maps"] = maps
    _write(path, tensors, {"state": asdict(state), "made_by": made_by(), **about})


def drop_optimizer(path: Path) -> None:
    """Leave the weights alone in the last checkpoint of a finished run, which then is finished as before.

    Raises:
        UserError: the file is damaged, or cannot be written. It is as it was then.
    """
    tensors, about = read(path)
    weights = {name: value for name, value in tensors.items() if name.startswith(WEIGHTS)}
    _write(path, weights, about)


def made_by() -> dict[str, Any]:
    """The code and the machine that make a checkpoint."""
    return {name: value for name, value in records.environment().items() if name != "command"}


def save_weights(path: Path, model: nn.Module, about: Mapping[str, Any]) -> None:
    """Write a model's weights alone, with what is needed to rebuild it."""
    _write(path, model.state_dict(), about)


def restore(
    path: Path,
    content: tuple[Mapping[str, Tensor], Mapping[str, Any]],
    model: nn.Module,
    optimizer: Optimizer,
    ema: AveragedModel | None,
) -> tuple[State, Tensor | None]:
    """The state and the stored maps of a checkpoint; the rest goes back to where ``save`` took it from.

    Args:
        path: the file, for errors.
        content: what ``read`` gave of it.
        model, optimizer, ema: receive what ``save`` took from them.
    """
    tensors, about = content
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "ema": {}, "maps": {}}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    try:
        model.load_state_dict(groups["model"])
        if ema is not None:
            ema.load_state_dict(groups["ema"])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            number, _, slot = name.partition(".")
            slots.setdefault(int(number), {})[slot] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
        for parameter, slots_of_parameter in optimizer.state.items():
            for slot, value in slots_of_parameter.items():
                if slot == "step":  # AdamW's count of steps, a number on the CPU, is not shaped like a weight
                    continue
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # A file does not hold the memory format.
                    slots_of_parameter[slot] = torch.empty_like(parameter).copy_(value)
        return State(**about["state"]), groups["maps"].get("")
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not belong to this run: {reason}. Remove it to start afresh."
        ) from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the JSON header of a file that this project wrote."""
    tensors, header = read_weights(path)
    return tensors, _about(path, header)


def read_about(path: Path) -> dict[str, Any]:
    """The JSON header of a file that this project wrote, without its tensors.

    Its checksum is of the whole file, and is not looked at: for what is compared, or read in whole, afterwards.
    """
    return _about(path, read_metadata(path))


def _about(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    if "counterpart" not in header:
        raise UserError(f"{path} holds weights, but no counterpart header: use it with --model.init instead.")
    try:
        about = parse_json(header["counterpart"])
    except ValueError as error:
        raise UserError(f"{path} is damaged: its header is no JSON ({error}).") from None
    if not isinstance(about, dict):
        raise UserError(f"{path} is damaged: its header does not say what it holds.")
    return about


def _write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    header = {"counterpart": json.dumps(about), "format": "pt"}
    flat = {name: value.detach().contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_tensors(flat, temporary, header))


def finite(tensors: Sequence[Tensor]) -> Bool[Tensor, ""]:
    """Whether all values are finite, so that none is NaN or infinite; without a wait for the device."""
    filled = [tensor.detach() for tensor in tensors if tensor.numel()]
    if not filled:
        return torch.ones((), dtype=torch.bool)
    largest = torch._foreach_norm(filled, float("inf"))  # one kernel for many tensors; NaN stays NaN
    return torch.stack(largest).isfinite().all()
