"""Targets that no run here trained: networks of timm, published weights, ONNX and TorchScript files, a user's code."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import build, devices
from ..catalogue import find
from ..config import Config, plain, resolve
from ..data.class_map import mapped
from ..data.decoding import Prepare, fit
from ..data.image_sets import ImageSet
from ..data.resizing import prepared_as
from ..errors import UserError
from ..evaluation.answers import logits_of
from ..evaluation.batches import read_batch
from ..evaluation.weights import weights_hash
from ..models.adapters import as_classifier
from ..models.hub import classes_in, start_from
from ..models.merged import merged
from ..models.normalize import ImageClassifier
from ..models.onnx_file import NOTE, OnnxModel
from ..models.published import load_published
from ..models.torchscript import TorchScriptModel, refuse_program
from ..models.user_code import load_user
from ..records import fingerprint
from ..renamed_settings import in_first_words
from ..rundir import RunDir
from .published_models import check_architecture, row_of
from .stored_models import weights_of
from .target import Target, class_map_of, images_to_judge, refuse_other_classes

ASKED = 16  # the number of images that show what a model from outside answers with


def timm_target(text: str, changes: Mapping[str, Any]) -> Target:
    """The target of a network of timm.

    Images in files get its own resize and crop, and all images its normalisation.
    """
    from ..models import backbones  # timm takes long to import

    defaults = {"data": {"name": "folder"}, "model": {"name": text, "pretrained": True}}
    way = backbones.preprocessing(text)

    def load(config: Config) -> tuple[nn.Module, tuple[str, ...]]:
        about: dict[str, Any] = {"name": text, "num_classes": backbones.outputs(text), "image_size": way.crop}
        if config.model.init is None:
            return build.build_model(about, seed=0, pretrained=True), ()
        weights, source = weights_of(config.model.init)
        fresh = build.build_model(about, seed=0)
        assert isinstance(fresh, ImageClassifier)
        about["num_classes"] = classes_in(fresh, weights)
        model = build.build_model(about, seed=0)
        start_from(model, weights, source, text)
        return model, (f"weights of {source}",)

    known = backbones.imagenet_names(text) if (changes.get("model") or {}).get("init") is None else None
    return outside_target(
        text, text, defaults, changes, load, classes=known, crop=way.crop, prepare=way.apply
    )


def published_target(text: str, changes: Mapping[str, Any]) -> Target:
    """The target of a state dict that others published, written as ARCHITECTURE@FILE or NAME@FILE."""
    architecture, _, name = text.partition("@")
    file = Path(name).expanduser()
    if not file.is_file():
        raise UserError(
            f"{text}: there is no file {file}. The form is ARCHITECTURE@FILE or, of a published model, NAME@FILE."
        )

    row = row_of(architecture, changes)
    run_name = f"{architecture}-{file.stem}" if row is None else row.name
    if row is not None:
        architecture = row.network
    check_architecture(architecture)

    def load(config: Config) -> tuple[nn.Module, tuple[str, ...]]:
        model, notes = load_published(architecture, file, normalisation=config.model.normalisation, row=row)
        return model, tuple(notes)

    defaults = {"model": {"name": architecture, "init": str(file)}}
    preparation: dict[str, Any] = {}
    if row is not None and row.preparation:
        crop, prepare = prepared_as(row.preparation)
        preparation = {"crop": crop, "prepare": prepare, "of_benchmark": True}
    elif architecture.startswith("timm/"):
        from ..models import backbones

        way = backbones.preprocessing(architecture)
        preparation = {"crop": way.crop, "prepare": way.apply}
    return outside_target(text, run_name, defaults, changes, load, **preparation)


def user_target(text: str, changes: Mapping[str, Any]) -> Target:
    """The target of the network that a user's own function returns."""
    return outside_target(text, text, {"model": {"name": text}}, changes, lambda _: (load_user(text), ()))


def onnx_target(file: Path, text: str, changes: Mapping[str, Any]) -> Target:
    """The target of an ONNX file, whose network gives answers and no gradients."""
    return outside_target(
        text, file.stem, {"model": {"name": text}}, changes, lambda _: (OnnxModel(file), (NOTE,))
    )


def program_target(file: Path, text: str, changes: Mapping[str, Any], trust: bool) -> Target:
    """The target of a TorchScript file, whose program runs where the user said ``trust``."""
    if not trust:
        refuse_program(file)
    note = f"{file} is a program, which runs."
    return outside_target(
        text, file.stem, {"model": {"name": text}}, changes, lambda _: (TorchScriptModel(file), (note,))
    )


def outside_target(
    text: str,
    name: str,
    defaults: Mapping[str, Any],
    changes: Mapping[str, Any],
    load: Callable[[Config], tuple[nn.Module, tuple[str, ...]]],
    *,
    classes: list[str] | None = None,
    trained_on: str = "",
    crop: int | None = None,
    prepare: Prepare | None = None,
    of_benchmark: bool = False,
) -> Target:
    """The target of a model that no run here trained. Its results go into a folder of its own.

    ``prepare`` turns files into images with sides of ``crop`` pixels. Under a protocol it counts only where it is
    ``of_benchmark``, which states it for this very model.
    """
    if "name" not in {**defaults.get("data", {}), **changes.get("data", {})}:
        raise UserError(
            f"{text}: on which images? Such as --data.name cifar10 --data.root DIR; a folder of images is "
            "--data.name folder --data.root DIR."
        )
    name = re.sub(r"[^\w.-]+", "-", name)
    config = resolve({"name": name, "train": {"method": "clean"}}, defaults, changes, source=text)
    device = devices.resolve(config.device, config.threads)
    prepared: dict[str, Any] = {}
    other = config.evaluate.protocol is not None and not of_benchmark
    if prepare is not None and not other and find("data", config.data.name).facts.prepared_by_networks:
        prepared = {"size": crop, "prepare": _resized_first(prepare, config.data.size)}
    images, doubts, chosen = images_to_judge(config, device, trained_on, **prepared)
    model, notes = load(config)
    model, answers, adapted = understand(model.to(device).eval(), images, device)
    refuse_other_classes(config, text, answers)
    notes = (*chosen, *notes, *adapted)
    names = classes or [f"output {i}" for i in range(answers)]
    if classes is None and answers == len(images.classes) and not isinstance(defaults.get("data"), Mapping):
        names = list(images.classes)  # as many as the data has: in its order
    theirs = images.classes
    images, groups = mapped(images, config.data.class_map, names)
    class_map = class_map_of(config, theirs, names, groups, model)
    if groups is not None:
        model, answers = merged(model, groups), len(groups)
    run = RunDir(config.runs / (config.name or name))
    weights = "pretrained" if config.model.init is None and text.startswith("timm/") else text
    described = fingerprint(in_first_words(plain(config))["model"])
    who = {"config": described, "weights": weights, "method": config.model.name}
    return Target(text, run, config, model, answers, images, device, who, notes, doubts, class_map=class_map)


def _resized_first(prepare: Prepare, size: int | None) -> Prepare:
    """A network's own way to prepare an image, after a resize and crop to the size, if there is one."""
    if size is None:
        return prepare
    return lambda image: prepare(fit(image.convert("RGB"), size))


def understand(
    model: nn.Module, images: ImageSet, device: torch.device, **normalisation: Any
) -> tuple[nn.Module, int, tuple[str, ...]]:
    """A model as a classifier, the number of its classes, and sentences on how it was understood.

    The model is asked about a few images, which must not change it. ``normalisation`` is the ``mean`` and
    ``std`` by which images are normalised before they reach it.
    """
    if len(images) == 0:
        raise UserError(f"the {images.split} split of {images.name} holds no images: nothing to evaluate.")
    before = weights_hash(model)
    try:
        few = read_batch(images, torch.arange(min(ASKED, len(images))), device).images
        classifier, notes = as_classifier(model, few, **normalisation)
        logits = logits_of(classifier, few[:1])
    except Exception as error:  # the user's own code may raise anything
        shape = "x".join(map(str, images.shape))
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        grey = images.name == "folder" and images.shape[0] == 3
        advice = " (a model of grey images wants --data.channels 1)" if grey else ""
        raise UserError(f"the model does not answer for an image of {shape}: {reason}{advice}") from error
    if weights_hash(model) != before:
        raise UserError(
            "the model changes while it answers (a forward pass writes into its weights or buffers, such as batch "
            "norm in training mode): mend its forward, or its eval()."
        )
    return classifier.eval(), int(logits.shape[1]), notes
