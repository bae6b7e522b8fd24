"""Where a training goes on: the state of its last checkpoint, which is the same on every host."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from .. import distributed, hosts
from ..errors import UserError
from ..rundir import RunDir, differences
from . import checkpoint
from .checkpoint import State

REFUSED = {"config": "settings", "fingerprint": "data", "masks": "masks"}
"""What a checkpoint says that has to be the same when a training goes on, and its name in sentences."""

_log = logging.getLogger(__name__)


def resume(
    run: RunDir,
    about: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    ema: AveragedModel | None,
    device: torch.device,
) -> tuple[State, Tensor | None]:
    """The state that the run has reached, or the first without a checkpoint, and the stored maps.

    The main process's checkpoint counts, and is copied to hosts that do not see its disk. What was made with other
    settings, data or masks is refused; other code is said, since it may end in other last bits.

    Raises:
        UserError: the checkpoint is damaged, or was made with something else.
    """
    last = run.checkpoint("last")
    _refuse_a_later_start(last)
    hosts.follow_main(run.path, [last.relative_to(run.path).as_posix()])
    if not last.exists():
        return State(), None
    content = checkpoint.read(last)
    _compare(last, content[1], about)
    state, maps = checkpoint.restore(last, content, model, optimizer, ema)
    if not distributed.is_main():  # the checkpoint holds the sums over all processes
        state.totals = {}
    return state, None if maps is None else maps.to(device)


def _compare(last: Path, before: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another training, and say where other code goes on than made it."""
    changed = [
        f"{what} {before.get(key)} there, {about.get(key)} now"
        for key, what in REFUSED.items()
        if before.get(key) != about.get(key)
    ]
    if changed:
        raise UserError(
            f"{last} was made with something else ({'; '.join(changed)}). Put back what changed, or start another "
            "run with --name."
        )
    now = checkpoint.made_by()
    others = differences(before.get("made_by", now), now)
    if others and distributed.is_main():
        _log.warning(
            "Note: %s was made by other code than goes on now (%s): the last bits may come out otherwise than without "
            "the stop.",
            last,
            "; ".join(others),
        )


def _refuse_a_later_start(last: Path) -> None:
    """Refuse to go on from the main process's checkpoint where another process has one of a later step.

    That happens where hosts without a shared disk are numbered otherwise than at the last start.
    """
    if distributed.world_size() == 1:
        return
    reached = (-1, -1)
    if last.exists():
        header = checkpoint.read_about(last)
        try:
            reached = (header["state"]["epoch"], header["state"]["step"])
        except (LookupError, TypeError):  # its checksum has not been looked at yet
            raise UserError(
                f"{last} is damaged: its header does not say how far the training came. Put back a copy, or remove it."
            ) from None
    everywhere = distributed.gather(reached)
    rank = everywhere.index(max(everywhere))
    if everywhere[rank] > everywhere[0]:
        raise UserError(
            f"process {rank} has a checkpoint of a later step than the main process, in {last}: number the hosts as "
            "at the last start (--node-rank), or remove the checkpoint there."
        )
