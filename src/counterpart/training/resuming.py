"""Where a training goes on: the state of its last checkpoint, which is the same on every host."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from .. import distributed, hosts
from ..errors import UserError
from ..rundir import RunDir
from . import checkpoint
from .checkpoint import State


def resume(
    run: RunDir,
    about: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    ema: AveragedModel | None,
    device: torch.device,
) -> tuple[State, Tensor | None]:
    """The state that the run has reached, or the first without a checkpoint, and the stored maps.

    The main process's checkpoint counts, and is copied to hosts that do not see its disk.
    """
    last = run.checkpoint("last")
    _refuse_a_later_start(last)
    hosts.follow_main(run.path, [last.relative_to(run.path).as_posix()])
    if not last.exists():
        return State(), None
    before = checkpoint.read(last)[1]
    for key, what, things in (("fingerprint", "data", "images"), ("masks", "masks", "masks")):
        if before.get(key) != about.get(key):
            raise UserError(
                f"{run.path} was trained on {what} {before.get(key)}, now there is {about.get(key)}: the {things} "
                "changed. Put them back, or start another run with --name."
            )
    state, maps = checkpoint.load(last, model, optimizer, ema)
    if not distributed.is_main():  # the checkpoint holds the sums over all processes
        state.totals = {}
    return state, None if maps is None else maps.to(device)


def _refuse_a_later_start(last: Path) -> None:
    """Refuse to go on from the main process's checkpoint where another process has one of a later step.

    That happens where hosts without a shared disk are numbered otherwise than at the last start.
    """
    if distributed.world_size() == 1:
        return
    reached = (-1, -1)
    if last.exists():
        state = checkpoint.read(last)[1]["state"]
        reached = (state["epoch"], state["step"])
    everywhere = distributed.gather(reached)
    rank = everywhere.index(max(everywhere))
    if everywhere[rank] > everywhere[0]:
        raise UserError(
            f"process {rank} has a checkpoint of a later step than the main process, in {last}: number the hosts as "
            "at the last start (--node-rank), or remove the checkpoint there."
        )
