"""The errors of training that say what happened, what is left of the run, and what to do."""

import torch
from torch import nn

from .. import devices, distributed
from ..batch import Batch
from ..errors import Diverged, OutOfMemory
from ..models.inference import InferenceView
from ..rundir import RunDir
from .checkpoint import State
from .step import LoopOptions, Phase, one_pass


def diverged(run: RunDir, what: str, state: State) -> Diverged:
    """The error that says what was not finite, where, and what is left of the run."""
    last = run.checkpoint("last")
    checkpoint_note = (
        f"{last} was written before that and stays" if last.exists() else "No checkpoint had been written yet"
    )
    return Diverged(
        f"{what} at epoch {state.epoch + 1}, step {state.step}. {checkpoint_note}. A smaller optimizer.lr, "
        "optimizer.clip_norm 1 or train.precision float32 usually helps: each is another run, so give it another "
        "--name."
    )


def out_of_memory(
    batch: Batch, model: nn.Module, view: InferenceView, phase: Phase, options: LoopOptions
) -> OutOfMemory:
    """The error that says which batch size fits into memory.

    Do not call this inside an except block, because the error there keeps memory alive.
    """

    def attempt(size: int) -> None:
        model.zero_grad(set_to_none=True)
        _, loss = one_pass(batch.select(slice(0, size)), 0, 0, model, view, phase, options)
        torch.autograd.backward(loss.total)

    fits = devices.size_that_fits(attempt, len(batch), options.device) * distributed.world_size()
    advice = (
        f"--train.batch-size {fits} fits" if fits else "not even one image fits: use a smaller model or size"
    )
    return OutOfMemory(
        f"Out of memory with batches of {options.batch_size}: {advice}. The last checkpoint is untouched; "
        "another batch size is another run, so give it another --name."
    )
