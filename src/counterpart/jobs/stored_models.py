"""Models and weights in run folders and files: read, and rebuilt from what a checkpoint says of itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import build
from ..catalogue import OBJECT, is_users_code, refuse_object
from ..errors import UserError
from ..models.hub import load_weights, read_weights
from ..models.merged import merged
from ..rundir import RunDir
from ..training import checkpoint

UNAVERAGED = "unaveraged"  # the last weights as the optimiser left them
DESCRIBED = ("model", "classes", "data", "fingerprint", "config")  # what a checkpoint says of its model


def weights_of(source: str) -> tuple[dict[str, Tensor], str]:
    """Weights of a run folder or a file. Of the checkpoint of a training, those that would be judged."""
    path = Path(source).expanduser()
    if path.is_dir():
        path = RunDir(path).checkpoint("best")
    tensors, header = read_weights(path)
    return _judged_weights(tensors) if "counterpart" in header else tensors, str(path)


def _judged_weights(tensors: Mapping[str, Tensor], *, averaged: bool = True) -> dict[str, Tensor]:
    """The model's weights in a file of this project, the averaged ones where it has some and they are wanted.

    A file that holds a whole training has them under a prefix.
    """
    prefixes = ("ema.module.", "model.") if averaged else ("model.",)
    prefix = next((text for text in prefixes if any(name.startswith(text) for name in tensors)), "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def load_run(run: RunDir, which: str) -> tuple[nn.Module, dict[str, Any]]:
    """A run's "best", "last" or "unaveraged" model, and what its checkpoint's header says of it."""
    settings = run.config()  # refuses a folder that is no run, before it misses a checkpoint
    path = run.checkpoint("last" if which == UNAVERAGED else which)
    if not path.exists():
        if str(settings.get("model", {}).get("name")).startswith(OBJECT):
            refuse_object()
        raise UserError(
            f"{path} is missing: {run.path} has not finished an epoch yet. Continue its training first."
        )
    return load_checkpoint(path, averaged=which != UNAVERAGED, of_run=not run.manifest.exists())


def load_checkpoint(
    path: Path, *, averaged: bool = True, of_run: bool = True
) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a checkpoint, rebuilt from its header, with averaged weights where it has some and they are wanted.

    A file of the best weights holds only those that were judged.

    Args:
        path: the file.
        averaged: whether averaged weights are wanted.
        of_run: whether the file lies in its run folder. One that lies alone, or in a folder that somebody shared, runs
            no code that its header names.

    Raises:
        UserError: the file is damaged, or lies alone and names code.
    """
    tensors, about = checkpoint.read(path)
    if "state" in about:
        tensors = _judged_weights(tensors, averaged=averaged)
    if lacking := [name for name in DESCRIBED if name not in about]:
        raise UserError(f"{path} is damaged: its header does not say {lacking[0]!r}.")
    if not of_run:
        _refuse_code(path, about["model"])
    try:
        model = build.build_model(about["model"], seed=0)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged: its header describes no network ({reason}).") from error
    load_weights(model, tensors, str(path))
    return _merged_as_stored(path, model, about), about


def _merged_as_stored(path: Path, model: nn.Module, about: Mapping[str, Any]) -> nn.Module:
    """The model with its outputs merged into the answers that its header names, if any (``data.class_map``).

    Raises:
        UserError: the header names outputs that the model lacks, or another number of answers than of classes.
    """
    groups = about.get("groups")
    if groups is None:
        return model
    count = about["model"]["num_classes"]
    try:
        outputs = [output for group in groups for output in group]
        sound = all(isinstance(output, int) and 0 <= output < count for output in outputs)
        sound = (
            sound
            and all(groups)
            and len(set(outputs)) == len(outputs)
            and len(groups) == len(about["classes"])
        )
    except TypeError:
        sound = False
    if not sound:
        raise UserError(f"{path} is damaged: its header merges outputs that the network does not have.")
    return merged(model, groups)


def _refuse_code(path: Path, described: Any) -> None:
    """Refuse a network that is named as code: a file of weights from anywhere shall run nothing by itself."""
    name = described.get("name") if isinstance(described, Mapping) else None
    if isinstance(name, str) and is_users_code(name):
        raise UserError(
            f"{path} says that its network is the code {name}, which a file alone may not run. Judge the run folder "
            "that it comes from, or a module:function of your own that returns the network with these weights."
        )
