"""The functions that train a model, and that open one that was trained: ``train`` and ``load``."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from .. import recipes
from ..config import Config, resolve
from ..data.image_sets import Splits
from ..data.objects import is_data, read_splits
from ..dotted_names import nest
from ..errors import UserError
from ..jobs import training
from ..jobs.named_models import open_model
from ..jobs.objects import name_object, weights_into
from ..jobs.tracking import tracked
from ..records import Listener, Record
from ..report import write_report
from ..rundir import RunDir
from .evaluation import evaluate as evaluate_model
from .results import Judgement
from .state import left_as_found


class TrainedRun:
    """A run that ``counterpart.train`` trained, or continued.

    Attributes:
        path: the run folder.
        finished: whether the run reached its last epoch. If not, the same call to ``train`` continues it.
    """

    def __init__(self, run: RunDir, config: Config, finished: bool, template: nn.Module | None) -> None:
        self.path = run.path
        self.finished = finished
        self._run, self._config, self._template = run, config, template

    @cached_property
    def model(self) -> nn.Module:
        """The network in eval mode, with the weights that had the best robust validation accuracy."""
        if self._template is None:
            return open_model(str(self.path))[0]
        return weights_into(self._template, self._run)

    @property
    def records(self) -> list[Record]:
        """Every record of the run: those of its epochs, its evaluations and its files."""
        return self._run.records()

    def evaluate(self, data: Any = None, **options: Any) -> Judgement:
        """The accuracies that ``counterpart.evaluate`` measures, by default on the run's own test images."""
        if self._template is None:
            return evaluate_model(str(self.path), data, **options)
        if data is None:
            raise UserError("this run was trained on objects: give the images to judge it on.")
        attack = self._config.attack
        defaults = {"name": self.path.name, "eps": attack.eps, "norm": attack.norm, "seed": self._config.seed}
        return evaluate_model(self.model, data, **{**defaults, **options})

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page of this run: one HTML file that needs nothing else."""
        return write_report([self.path], None if path is None else Path(path).expanduser())

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.path)!r}{'' if self.finished else ', not finished'})"


def train(
    recipe: str | Path,
    *,
    data: Any = None,
    model: nn.Module | str | None = None,
    root: str | Path | None = None,
    folder: str | Path | None = None,
    seed: int | None = None,
    changes: Mapping[str, Any] | None = None,
    on_record: Listener | None = None,
) -> TrainedRun:
    """A trained run of a recipe, which is continued where an earlier call stopped.

    Args:
        recipe: the name of a built-in recipe, such as "cifar10/part", or a YAML file.
        data: the images to train on, in any form that ``evaluate`` takes; a share of them becomes validation
            and test images. Or a mapping {"train": ..., "validation": ..., "test": ...}, of which the last
            two may be missing. Or the name of a data set. The default is the recipe's data set.
        model: the network to train: any module from images in [0, 1] to logits, of which a copy is trained,
            or the name of a network. The default is the recipe's network.
        root: the folder that holds the data set, where it has a name.
        folder: the run folder. The default is runs/<recipe>.
        seed: the number that everything random is drawn from.
        changes: other settings by their dotted names, such as {"train.epochs": 5}.
        on_record: a function that is given every record as it is written, and the folder of its run (None where nothing
            is written). What it raises is said once, and ends nothing.

    Returns:
        The run, with its model, records, evaluations and page.

    Raises:
        UserError: an argument is not understood; the message is one line and says what was expected.
    """
    config = configure(recipe, data, model, root, folder, seed, changes)
    with left_as_found(model), tracked(on_record):
        splits = read_images(data, config)
        template = model if isinstance(model, nn.Module) else None
        trained = training.train(config, data=splits, model=template)
    return TrainedRun(trained.run, config, trained.finished, template)


def configure(
    recipe: str | Path,
    data: Any,
    model: nn.Module | str | None,
    root: str | Path | None,
    folder: str | Path | None,
    seed: int | None,
    changes: Mapping[str, Any] | None,
    **more: Any,
) -> Config:
    """The configuration of a training, from the arguments of ``train``; ``more`` are settings below these."""
    settings: dict[str, Any] = {} if seed is None else {"seed": seed}
    if folder is not None:
        place = Path(folder).expanduser()
        settings |= {"runs": str(place.parent), "name": place.name}
    if root is not None:
        settings["data.root"] = str(root)
    if is_data(data):
        settings["data.name"] = name_object(data)
    elif data is not None:
        settings["data.name"] = str(data)
    if model is not None:
        settings |= {
            "model.name": name_object(model) if isinstance(model, nn.Module) else str(model),
            "model.width": None,
        }
    return resolve(recipes.load(str(recipe)), more, nest(settings), nest(changes), source=str(recipe))


def read_images(data: Any, config: Config) -> Splits | None:
    """The images that a program holds; None where the configuration names a data set."""
    if not is_data(data):
        return None
    try:
        return read_splits(data, config.data.validation)
    except ValueError as error:
        raise UserError(f"data: {error}") from error


def load(run: str | Path) -> nn.Module:
    """A model in eval mode, from images in [0, 1] to logits.

    Args:
        run: a run folder, which gives the model with its best weights; a checkpoint, or a file that ``export`` wrote
            (.safetensors, .pt with its .json, .onnx); timm/NAME with its published weights; ARCHITECTURE@WEIGHTS.pt;
            hf://OWNER/NAME, a shared model that the hub's client fetches; or module:function of your own.

    Raises:
        UserError: there is no such model, or the run trained an object of a program, which no folder can
            hold.
    """
    return open_model(str(run))[0]
