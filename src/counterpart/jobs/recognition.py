"""Recognition of a model that is an object of a program by its answers.

Its weights alone do not say what its code does.
"""

from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError

from ..checksums import load_tensors, save_tensors
from ..errors import UserError
from ..parsing.limits import refuse_large
from ..rundir import write_atomically
from .target import Target

FILE = "first-logits.safetensors"
SAME = 1e-3  # as a share of the largest logit; other threads differ by far less, other code by more


def recognise_model(folder: Path, target: Target) -> None:
    """Keep the first logits of a live model in its evaluation's folder, or compare them with those there.

    Raises:
        UserError: the model answers otherwise than the model that the folder belongs to, or the file is
            damaged.
    """
    if target.first_logits is None:
        return
    file = folder / FILE
    if not file.exists():
        write_atomically(file, partial(save_tensors, {"logits": target.first_logits.contiguous()}))
        return
    try:
        refuse_large(file, "WEIGHTS")
        before = load_tensors(file)["logits"]
    except (OSError, SafetensorError, KeyError, ValueError):
        raise UserError(f"{file} is damaged. Remove {folder}, and evaluate again.") from None
    now = target.first_logits
    if before.shape == now.shape and torch.allclose(
        before, now, rtol=0, atol=SAME * float(before.abs().max())
    ):
        return
    raise UserError(
        f"{folder} was made by a model of the same class and weights that answers otherwise: the code of its forward "
        "has changed. Remove that folder, or evaluate into another one."
    )
