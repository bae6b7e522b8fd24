"""Targets that are made of live objects: any network, and images that a program holds or that have a name."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import build, devices
from ..catalogue import OBJECT
from ..checks import check_unit_range
from ..config import Config, merge, resolve
from ..data.image_sets import ImageSet
from ..data.objects import is_data, read_objects
from ..data.samples import pixels_of
from ..data.transforms import as_floats
from ..errors import UserError
from ..evaluation.answers import logits_of
from ..evaluation.batches import read_batch
from ..evaluation.weights import weights_hash
from ..models.adapters import Normalise, as_classifier
from ..models.hub import load_weights
from ..models.modes import eval_mode
from ..models.random_passes import seeded_passes
from ..records import fingerprint
from ..rundir import RunDir
from ..seeding import derive
from .outside_models import understand
from .stored_models import weights_of
from .target import Target, refuse_other_classes

FEW = 64  # the number of images whose logits tell whether a model may go on with an evaluation


def target_of_objects(
    model: nn.Module,
    data: Any,
    changes: Mapping[str, Any],
    *,
    folder: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> Target:
    """A target of a network and images, like those that a command names.

    Args:
        model: any ``torch.nn.Module`` from images in [0, 1] to logits; see ``models.adapters`` for what is understood.
            It stays where it lies, unless ``changes`` name a device, and is not changed.
        data: what ``data.objects.read_objects`` takes, or None for the data set that ``changes`` name.
        changes: nested settings, such as {"evaluate": {"n": 100}}.
        folder: the folder that results go into. With None, nothing is written.
        mean: the value of each channel to subtract from the images before they reach the model.
        std: the value of each channel to divide by after that.
        classes: the name of each class.
        name: the name of the model. The default is the name of its Python class.

    Raises:
        UserError: an argument is not understood; the message is one line.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"a model is a torch.nn.Module, or the name of one; got {type(model).__name__}. Put it into a module."
        )
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    called = name or type(model).__name__
    config = _settings(changes, called, kind, data, folder)
    device = _device_of(model, changes, config)
    images = _read(data, config, device, folder, classes)
    _check_normalisation(images, mean, std)
    with eval_mode(model):
        classifier, answers, notes = understand(model.to(device), images, device, mean=mean, std=std)
    refuse_other_classes(config, called, answers)
    images = _with_names(images, answers)
    about = {"class": kind, "adapters": list(notes)}
    described = fingerprint({"object": kind, "adapters": list(notes)})
    who = {"config": described, "weights": weights_hash(model), "method": called}
    run = RunDir(config.runs / str(config.name))
    return Target(
        f"{OBJECT}{kind}", run, config, classifier, answers, images, device, who, notes,
        has_folder=folder is not None, about=about, first_logits=_first_logits(classifier, images, device),
    )  # fmt: skip


def understand_images(
    model: nn.Module, images: Any, *, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[nn.Module, Tensor]:
    """A model as a classifier, and images as floats (B, C, H, W) on the model's device.

    Raises:
        UserError: the images are none, or the model does not answer for them.
    """
    try:
        pixels = as_floats(pixels_of(images)).to(device_of(model))
        check_unit_range(pixels)
    except (TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else "expected a tensor or array (N, C, H, W)."
        raise UserError(f"images: {reason}") from error
    if len(pixels) == 0:
        raise UserError("images: there are none; give at least one.")
    try:
        return as_classifier(model, pixels[:16], mean=mean, std=std)[0], pixels
    except Exception as error:  # the user's own code may raise anything
        shape = "x".join(map(str, pixels.shape[1:]))
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the model does not answer for an image of {shape}: {reason}") from error


def device_of(model: nn.Module) -> torch.device:
    """The device that a model lies on."""
    return next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))


def name_object(thing: Any) -> str:
    """The name that settings give an object of a program.

    For a network it covers the weights as well, because training begins with them.
    """
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}"
    return f"{OBJECT}{kind} {weights_hash(thing)}" if isinstance(thing, nn.Module) else f"{OBJECT}{kind}"


def weights_into(template: nn.Module, run: RunDir) -> nn.Module:
    """A copy of a network in eval mode, with the best weights of a run."""
    model = deepcopy(template)
    load_weights(model, weights_of(str(run.path))[0], str(run.path))
    return model.eval()


def _settings(
    changes: Mapping[str, Any], name: str, kind: str, data: Any, folder: str | Path | None
) -> Config:
    """The settings of a run that is made of objects."""
    settings: dict[str, Any] = {
        "name": name,
        "train": {"method": "clean"},
        "model": {"name": f"{OBJECT}{kind}"},
    }
    if is_data(data):
        settings["data"] = {"name": f"{OBJECT}{type(data).__module__}.{type(data).__qualname__}"}
    if folder is not None:
        place = Path(folder).expanduser()
        settings |= {"runs": str(place.parent), "name": place.name}
    return resolve(merge(settings, changes), source="counterpart.evaluate")


def _device_of(model: nn.Module, changes: Mapping[str, Any], config: Config) -> torch.device:
    """The device to compute on, which is the model's own unless another is asked for."""
    here = device_of(model)
    wanted = devices.resolve(config.device, config.threads)
    if "device" not in changes:
        return here
    if wanted.type != here.type:
        raise UserError(
            f"device {config.device}: the model lies on {here.type}. Move it first: model.to({wanted.type!r})."
        )
    return here


def _read(
    data: Any, config: Config, device: torch.device, folder: str | Path | None, classes: Sequence[str] | None
) -> ImageSet:
    """The images to judge on."""
    split = config.evaluate.split
    if is_data(data):
        place = None if folder is None else Path(folder).expanduser()
        try:
            images = read_objects(data, split=split, classes=classes, folder=place)
        except ValueError as error:
            raise UserError(f"data: {error}") from error
        return images.to(device)
    options: dict[str, Any] = {"trained_on": ""} if config.data.name == "folder" else {}
    splits = build.load_splits(config, device, None if config.evaluate.eps_low is None else split, **options)
    return splits.test if split == "test" else splits.validation


def _with_names(images: ImageSet, answers: int) -> ImageSet:
    """The images with a name for every class of the model, which may know classes that they do not show."""
    more = tuple(f"output {number}" for number in range(len(images.classes), answers))
    return replace(images, classes=images.classes + more)


def _check_normalisation(images: ImageSet, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Refuse a normalisation that does not fit the images, before the model is asked anything."""
    try:
        Normalise(images.shape[0], mean, std)
    except ValueError as error:
        raise UserError(str(error)) from error


def _first_logits(model: nn.Module, images: ImageSet, device: torch.device) -> Tensor:
    """The logits of a few images, because the weights of a model do not say what its code does with them."""
    few = read_batch(images, torch.arange(min(FEW, len(images))), device)
    with seeded_passes(model, derive(0, "first logits"), device):
        return logits_of(model, few.images).cpu()
