"""The function that trains a recipe under settings that vary: ``sweep``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .. import recipes, sweeps
from ..dotted_names import nest
from ..jobs.tracking import tracked
from ..records import Listener
from .state import left_as_found
from .training import configure, read_images


def sweep(
    recipe: str | Path,
    space: str | Path | Mapping[str, Any],
    trials: int | None = None,
    *,
    data: Any = None,
    model: nn.Module | str | None = None,
    root: str | Path | None = None,
    folder: str | Path | None = None,
    seed: int | None = None,
    changes: Mapping[str, Any] | None = None,
    storage: str | None = None,
    prune: bool = True,
    on_record: Listener | None = None,
) -> sweeps.Sweep:
    """The trials of a recipe under settings that vary, compared by validation accuracy; the test images are not read.

    The same call continues a sweep that was stopped, and several processes that make it share the trials.

    Args:
        recipe: the name of a built-in recipe, such as "cifar10/trades", or a YAML file.
        space: the settings that vary, as {"train.beta": [1, 3, 6]} or {"optimizer.lr": {"low": 0.01, "high": 0.3,
            "log": True}}; or a YAML file of these, or the name of a ready-made space, such as "trades-beta".
        trials: the number of trials of all processes together. The default is every point of a space of lists.
        data, model, root, seed, changes: as ``train`` takes them.
        folder: the folder of the sweep. The default is runs/<recipe>-<space>.
        storage: the address of a database that machines share, such as "postgresql://user@host/name". The default
            is a journal in the folder of the sweep, for one machine.
        prune: whether trials end early that are below the median in natural and in robust accuracy.
        on_record: a function that is given every record as it is written, and the folder of its run (None where nothing
            is written). What it raises is said once, and ends nothing.

    Returns:
        The sweep, with its trials, the front, a picture of the trade-off, and recipes that ``train`` takes.

    Raises:
        UserError: an argument is not understood, or Optuna is missing; the message is one line.
    """
    name = f"{recipes.load(str(recipe))['name']}-{sweeps.name_of(space)}"
    config = configure(recipe, data, model, root, folder, seed, changes, name=name)
    chosen = sweeps.read_space(space, config)
    sweeps.refuse_given(chosen, nest(changes))
    with left_as_found(model), tracked(on_record):
        images = read_images(data, config)
        template = model if isinstance(model, nn.Module) else None
        return sweeps.sweep(config, chosen, trials, storage=storage, prune=prune, data=images, model=template)
