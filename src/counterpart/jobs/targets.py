"""The targets of commands: a run, a checkpoint, a network by name, published weights, or a user's code."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import build, devices, distributed, hosts
from ..catalogue import OBJECT, find, refuse_object
from ..catalogue.published import CLASSES
from ..config import Config, plain, resolve
from ..data.class_map import mapped
from ..data.decoding import Prepare, fit
from ..data.image_sets import ImageSet, Splits
from ..data.resizing import prepared_as
from ..errors import UserError
from ..evaluation.accuracy import read_batch
from ..evaluation.answers import logits_of
from ..evaluation.model_checks import Doubt, data_doubts
from ..evaluation.weights import weights_hash
from ..models.adapters import as_classifier
from ..models.hub import classes_in, start_from
from ..models.merged import merged
from ..models.normalize import ImageClassifier
from ..models.onnx_file import NOTE, OnnxModel
from ..models.published import load_published
from ..models.user_code import load_user
from ..records import fingerprint
from ..renamed_settings import in_first_words
from ..rundir import RunDir, members
from .published_models import check_architecture, row_of
from .run_doubts import doubts_of_fold, doubts_of_training
from .stored_models import load_checkpoint, load_run, weights_of

# What may change when a trained run is evaluated.
JUDGING = (
    "evaluate",
    "corruptions",
    "data",
    "device",
    "threads",
    "seed",
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
ASKED = 16  # the number of images that show what a model from outside answers with
FORMS = (
    "a run folder, a checkpoint (.safetensors), timm/NAME, ARCHITECTURE@WEIGHTS.pt, FILE.onnx, or module:function of "
    "your own"
)


@dataclass(frozen=True)
class Target:
    """A model, the images that it is to be judged on, and the folder that results go into.

    Attributes:
        text: the text by which the user named the target.
        run: the run folder.
        config: the configuration of the run, with the changes of the command line.
        model: the network, in eval mode, on its device.
        classes: the number of classes that the model answers with.
        images: the images of the whole split.
        device: the device that the model lies on.
        who: the facts that records give: the hash of the configuration, which weights, and the method's name.
        notes: sentences that everyone who reads the numbers should know.
        doubts: the doubts about the images.
        has_folder: whether results go into the run's folder; otherwise nothing is written.
        about: what identifies a model that is an object of a program, beside its weights.
        first_logits: (F, K) the logits of the first images, by which such a model is recognised.
    """

    text: str
    run: RunDir
    config: Config
    model: nn.Module
    classes: int
    images: ImageSet
    device: torch.device
    who: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    has_folder: bool = True
    about: Mapping[str, Any] | None = None
    first_logits: Tensor | None = None

    @property
    def data(self) -> str:
        """The name that records give the images. Images in two folders are two data sets."""
        root, (name, *changes) = self.config.data.root, self.images.name.split(" ")
        return (
            self.images.name
            if root is None or name != "folder"
            else " ".join([name, root.resolve().name, *changes])
        )


def open_targets(text: str, changes: Mapping[str, Any]) -> Iterator[Target]:
    """The target of every model that a text names; a group folder holds one model for each seed.

    Args:
        text: one of ``FORMS``. ``module:function`` runs the user's own code.
        changes: nested settings that differ from the run's own, such as {"evaluate": {"n": 100}}.

    Raises:
        UserError: the text names nothing, or model and images do not belong together.
    """
    path, changes = Path(text).expanduser(), _on_the_images_of_a_run(changes)
    if text.startswith(OBJECT):
        refuse_object()
    if hosts.main_has_folder(path):
        for run in _members(path):
            yield _run(run, text, None, changes)
    elif path.is_file() and path.suffix == ".onnx":
        yield _onnx(path, text, changes)
    elif path.is_file():
        yield _checkpoint(path, text, changes)
    elif "@" in text:
        yield _published(text, changes)
    elif text.startswith("timm/"):
        yield _timm(text, changes)
    elif ":" in text:
        yield _user(text, changes)
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


def refuse_other_classes(config: Config, text: str, classes: int) -> None:
    """Refuse a model that answers with another number of classes than the benchmark whose protocol is followed."""
    protocol = build.protocol_of(config)
    if protocol is not None and classes != (wanted := CLASSES[protocol.facts.data]):
        raise UserError(
            f"protocol {protocol.key} is of {protocol.facts.data} and its {wanted:,} classes, and {text} answers with "
            f"{classes:,}."
        )


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
    data, doubts, notes = _split(config, device, trained_on, staying=about.get("parts"), **shape)
    doubts += doubts_of_training(run, about.get("epoch"))
    if not others and not elsewhere:
        doubts += doubts_of_fold(data_of_run.get("fold"), config.data.fold)
    _check_channels(data, about["model"]["in_channels"])
    classes = int(about["model"]["num_classes"])
    refuse_other_classes(config, text, classes)
    images, groups = mapped(data, config.data.class_map, about["classes"])
    judged: nn.Module = model
    if groups is not None:
        judged, classes = merged(model, groups), len(groups)
    if data.fingerprint != about["fingerprint"]:
        said = f"the data ({data.fingerprint}) is not what the model was trained on ({about['fingerprint']})"
        notes += (f"{said[0].upper()}{said[1:]}.",)
    who = {"config": about["config"], "weights": which, "method": build.name_method(config)}
    if "eps_low" in about:  # the radius that mask.eps_low auto had reached
        who["trained_eps_low"] = about["eps_low"]
    return Target(text, run, config, judged.to(device).eval(), classes, images, device, who, notes, doubts)


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
    model, about = load_checkpoint(file)
    given = {"data": {"name": about["data"]}, "model": {"name": about["model"]["name"]}}
    known = {"classes": about["classes"], "trained_on": about["fingerprint"]}
    return _outside(text, file.stem, given, changes, lambda _: (model, ()), **known)


def _timm(text: str, changes: Mapping[str, Any]) -> Target:
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
    return _outside(text, text, defaults, changes, load, classes=known, crop=way.crop, prepare=way.apply)


def _published(text: str, changes: Mapping[str, Any]) -> Target:
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
    return _outside(text, run_name, defaults, changes, load, **preparation)


def _user(text: str, changes: Mapping[str, Any]) -> Target:
    """The target of the network that a user's own function returns."""
    return _outside(text, text, {"model": {"name": text}}, changes, lambda _: (load_user(text), ()))


def _onnx(file: Path, text: str, changes: Mapping[str, Any]) -> Target:
    """The target of an ONNX file, whose network gives answers and no gradients."""
    return _outside(text, file.stem, {"model": {"name": text}}, changes, lambda _: (OnnxModel(file), (NOTE,)))


def _outside(
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
    images, doubts, chosen = _split(config, device, trained_on, **prepared)
    model, notes = load(config)
    model, answers, adapted = understand(model.to(device).eval(), images, device)
    refuse_other_classes(config, text, answers)
    notes = (*chosen, *notes, *adapted)
    names = classes or [f"output {i}" for i in range(answers)]
    if classes is None and answers == len(images.classes) and not isinstance(defaults.get("data"), Mapping):
        names = list(images.classes)  # as many as the data has: in its order
    images, groups = mapped(images, config.data.class_map, names)
    if groups is not None:
        model, answers = merged(model, groups), len(groups)
    run = RunDir(config.runs / (config.name or name))
    weights = "pretrained" if config.model.init is None and text.startswith("timm/") else text
    described = fingerprint(in_first_words(plain(config))["model"])
    who = {"config": described, "weights": weights, "method": config.model.name}
    return Target(text, run, config, model, answers, images, device, who, notes, doubts)


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


def _split(
    config: Config, device: torch.device, trained_on: str | None, **options: Any
) -> tuple[ImageSet, tuple[Doubt, ...], tuple[str, ...]]:
    """The images to judge on, doubts about them, and notes on how they were chosen.

    A folder without split folders is judged as a whole by a model that never saw it.
    """
    if config.data.name == "folder":
        options["trained_on"] = trained_on if config.data.split_of is None else None
    masks_for = None if config.evaluate.eps_low is None else config.evaluate.split
    data = build.load_splits(config, device, masks_for, **options)
    if config.data.split_of is not None:
        _check_same_files(config.data.split_of, data)
    images = data.test if config.evaluate.split == "test" else data.validation
    if config.evaluate.split == "validation" and config.data.validation == 0 and len(images) == 0:
        raise UserError(
            "evaluate.split validation: with data.validation 0 no image was set aside. Judge the test split."
        )
    return images, tuple(data_doubts(images, data.train)), data.notes


def _check_same_files(path: Path, data: Splits) -> None:
    """Refuse images that differ from those that a run learned from and is judged on."""
    known = load_run(RunDir(path), "best")[1]["fingerprint"]
    if data.test.fingerprint != known:
        raise UserError(
            f"data.split_of: the images ({data.test.fingerprint}) are not those of {path} ({known}): they were "
            "changed, or --data.root names others."
        )
