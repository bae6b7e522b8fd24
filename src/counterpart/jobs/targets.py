"""The targets of commands: a run, a checkpoint, a network by name, published weights, or a user's code."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import build, devices, distributed, hosts
from ..catalogue import OBJECT, is_users_code, refuse_object
from ..config import Config, plain, resolve
from ..data.class_map import mapped
from ..data.image_sets import ImageSet
from ..errors import UserError
from ..models.hub import is_program
from ..models.merged import merged
from ..rundir import RunDir, members
from . import outside_models
from .hub_folders import HUB, downloaded, repository
from .run_doubts import doubts_of_fold, doubts_of_training
from .stored_models import load_checkpoint, load_run
from .target import Target, class_map_of, images_to_judge, refuse_other_classes

# What may change when a trained run is evaluated.
JUDGING = (
    "evaluate",
    "corruptions",
    "data",
    "device",
    "threads",
    "seed",
    "wait",
)
# Of the settings data, what decides the images.
OF_IMAGES = (
    "name",
    "root",
    "validation",
    "size",
    "channels",
    "fold",
    "crop_to_parts",
)
FORMS = (
    "a run folder, a checkpoint (.safetensors), timm/NAME, ARCHITECTURE@WEIGHTS.pt, FILE.onnx, a TorchScript "
    "FILE.pt, hf://OWNER/NAME, or module:function of your own"
)


def open_single_target(text: str, changes: Mapping[str, Any]) -> Target:
    """The target that a text names, where it has to be one model and no group of them.

    Raises:
        UserError: as of ``open_targets``; or the text names a folder of several runs.
    """
    targets = list(open_targets(text, changes))
    if len(targets) > 1:
        raise UserError(f"{text} holds {len(targets)} runs: name one of them.")
    return targets[0]


def open_targets(text: str, changes: Mapping[str, Any], *, trust: bool = False) -> Iterator[Target]:
    """The target of every model that a text names; a group folder holds one model for each seed.

    Args:
        text: one of ``FORMS``. ``module:function`` runs the user's own code.
        changes: nested settings that differ from the run's own, such as {"evaluate": {"n": 100}}.
        trust: whether a TorchScript program may run.

    Raises:
        UserError: the text names nothing, or model and images do not belong together.
    """
    path, changes = Path(text).expanduser(), _on_the_images_of_a_run(changes)
    if text.startswith(OBJECT):
        refuse_object()
    if text.startswith(HUB):
        yield _of_hub(text, changes)
    elif hosts.main_has_folder(path):
        for run in _members(path):
            yield _run(run, text, None, changes)
    elif path.is_file() and path.suffix == ".onnx":
        yield outside_models.onnx_target(path, text, changes)
    elif path.is_file() and is_program(path):
        yield outside_models.program_target(path, text, changes, trust)
    elif path.is_file():
        yield _checkpoint(path, text, changes)
    elif "@" in text:
        yield outside_models.published_target(text, changes)
    elif text.startswith("timm/"):
        yield outside_models.timm_target(text, changes)
    elif ":" in text:
        yield outside_models.user_target(text, changes)
    else:
        raise UserError(f"{text} does not exist, and is no model either. A target is {FORMS}.")


def _members(path: Path) -> Iterator[RunDir]:
    """The runs of a folder on the main process, which every host has then."""
    runs = members(path) if distributed.is_main() else []
    for name in distributed.gather([run.path.relative_to(path).as_posix() for run in runs])[0]:
        run = RunDir(path / name)
        follow_main(run)
        yield run


def _on_the_images_of_a_run(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The changes, with the settings that ``data.split_of`` stands for.

    These settings decide which images a run is judged on.
    """
    data = changes.get("data") or {}
    if data.get("split_of") is None:
        return changes
    theirs = RunDir(Path(data["split_of"]).expanduser()).config().get("data", {})
    images = {name: theirs[name] for name in OF_IMAGES if theirs.get(name) is not None}
    return {**changes, "data": {**images, **data}}


def claim(target: Target) -> None:
    """Make the target's run folder, or check that the folder there belongs to the same model.

    A setting of the model that is younger than the folder counts as its default there.

    Raises:
        UserError: the folder holds something else.
    """
    if distributed.is_main():
        source = str(target.run.config_file)
        target.run.create(
            plain(target.config), lambda known: {"model": plain(resolve(known, source=source))["model"]}
        )
    distributed.barrier()
    follow_main(target.run)


def follow_main(run: RunDir) -> None:
    """Give every host what a model is judged by, of the main process's run folder."""
    names = [
        path.relative_to(run.path).as_posix() for path in (run.checkpoint("best"), run.checkpoint("last"))
    ]
    hosts.follow_main(run.path, ["config.yaml", "environment.json", *names], fixed=["config.yaml"])


def surrogate(text: str, device: torch.device, settings: Mapping[str, Any]) -> nn.Module:
    """The model of a target, for transfer attacks on another model."""
    return next(open_targets(text, settings)).model.to(device)


def _run(run: RunDir, text: str, file: Path | None, changes: Mapping[str, Any]) -> Target:
    """The target of a run folder, with its best or last weights, or with those in a file."""
    for section in changes:
        if section not in JUDGING and not (section == "mask" and set(changes[section]) == {"files"}):
            raise UserError(
                f"{section} is a setting of training, and {run.path} has been trained. To judge it, set "
                f"{', '.join(JUDGING)}; another radius is --evaluate.eps, another norm --evaluate.norm."
            )
    of_run = run.config()
    data_of_run = {"name": "digits", **of_run.get("data", {})}  # a setting that is missing means its default
    others = (changes.get("data") or {}).get("name", data_of_run["name"]) != data_of_run["name"]
    if others and (protocol := (changes.get("evaluate") or {}).get("protocol")) is not None:
        raise UserError(
            f"protocol {protocol} is of {changes['data']['name']}, and {run.path} learned from {data_of_run['name']}."
        )
    # What the run says of its data does not hold for another set, and data.limit is for training images.
    of_run["data"] = {} if others else {**data_of_run, "limit": None}
    config = resolve(of_run, changes, source=str(run.path))
    device = devices.resolve(config.device, config.threads)
    which: str = config.evaluate.weights
    if file is None:
        model, about = load_run(run, config.evaluate.weights)
    else:
        model, about = load_checkpoint(file)
        which = str(file.resolve().relative_to(run.path))
    elsewhere = str(config.data.root) != str(data_of_run.get("root"))
    shape = _shape_of(about["model"], config) if others else {}
    trained_on = about["fingerprint"] if elsewhere else None
    data, doubts, notes = images_to_judge(config, device, trained_on, staying=about.get("parts"), **shape)
    doubts += doubts_of_training(run, about.get("epoch"))
    if not others and not elsewhere:
        doubts += doubts_of_fold(data_of_run.get("fold"), config.data.fold)
    _check_channels(data, about["model"]["in_channels"])
    classes = len(about["classes"])  # fewer than the network's outputs where some were merged
    refuse_other_classes(config, text, classes)
    images, groups = mapped(data, config.data.class_map, about["classes"], about.get("groups"))
    class_map = class_map_of(config, data.classes, about["classes"], groups, model)
    judged: nn.Module = model
    if groups is not None:
        judged, classes = merged(model, groups), len(groups)
    if data.fingerprint != about["fingerprint"]:
        said = f"the data ({data.fingerprint}) is not what the model was trained on ({about['fingerprint']})"
        notes += (f"{said[0].upper()}{said[1:]}.",)
    who = {"config": about["config"], "weights": which, "method": build.name_method(config)}
    if "eps_low" in about:  # the radius that mask.eps_low auto had reached
        who["trained_eps_low"] = about["eps_low"]
    return Target(
        text, run, config, judged.to(device).eval(), classes, images, device, who, notes, doubts, header=about,
        class_map=class_map,
    )  # fmt: skip


def _shape_of(model: Mapping[str, Any], config: Config) -> dict[str, int]:
    """The size and channels in which other data are read for a model, where the settings do not say."""
    shape = {} if config.data.size is not None else {"size": int(model["image_size"])}
    if config.data.name == "folder" and config.data.channels is None:
        shape["channels"] = int(model["in_channels"])
    return shape


def _check_channels(images: ImageSet, wanted: int) -> None:
    if images.shape[0] != wanted:
        advice = f": --data.channels {wanted}" if images.name == "folder" else ""
        raise UserError(
            f"the model wants images of {wanted} channel{'s' * (wanted != 1)}, and those of {images.name} have "
            f"{images.shape[0]}{advice}."
        )


def _checkpoint(file: Path, text: str, changes: Mapping[str, Any]) -> Target:
    """The target of a checkpoint file, which lies in its run's folder, or alone."""
    home = RunDir(file.resolve().parent.parent)
    if home.config_file.exists():
        return _run(home, text, file, changes)
    return _lone_checkpoint(file, text, file.stem, changes)


def _of_hub(text: str, changes: Mapping[str, Any]) -> Target:
    """The target of a shared model on the hub. Its results go into a folder of its own, and not to what was fetched."""
    file = RunDir(downloaded(text)).checkpoint("best")
    return _lone_checkpoint(file, text, repository(text)[0].partition("/")[2], changes)


def _lone_checkpoint(file: Path, text: str, name: str, changes: Mapping[str, Any]) -> Target:
    """The target of a checkpoint from anywhere, which runs no code that it names."""
    model, about = load_checkpoint(file, of_run=False)
    # Data that are code are for the user to name: a file of weights from anywhere shall run nothing by itself.
    data = {} if is_users_code(str(about["data"])) else {"name": about["data"]}
    settings = {"data": data, "model": {"name": about["model"]["name"]}}
    known = {"classes": about["classes"], "trained_on": about["fingerprint"]}
    target = outside_models.outside_target(text, name, settings, changes, lambda _: (model, ()), **known)
    return replace(target, header=about)
