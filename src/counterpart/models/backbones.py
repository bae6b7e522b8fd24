"""timm's networks as classifiers of images in [0, 1], and the preprocessing that each was trained with."""

import difflib
from dataclasses import dataclass
from math import floor
from typing import Any

import timm
from jaxtyping import UInt8
from PIL import Image
from timm.data import ImageNetInfo, create_transform, infer_imagenet_subset, resolve_data_config
from torch import Tensor, nn

from ..errors import UserError, nearest
from .normalize import ImageClassifier


def create(
    name: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    pretrained: bool,
    patch_size: int | None = None,
) -> ImageClassifier:
    """Create the network ``timm/NAME``, which normalises with its own mean and standard deviation."""
    config = pretrained_config(name)
    arguments = creation(name, num_classes, in_channels, image_size, patch_size)
    try:
        backbone = timm.create_model(**arguments, pretrained=pretrained)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
        what = f"cannot load the pretrained weights of {name}" if pretrained else f"cannot build {name}"
        advice = ". From weights on the disk: --model.init FILE." if pretrained else "."
        raise UserError(f"{what}: {reason}{advice}") from error
    if not hasattr(backbone, "get_classifier"):
        raise UserError(f"{name} is no classifier: it has no final layer. Choose a network with one.")
    if not isinstance(backbone.get_classifier(), nn.Module):
        raise UserError(f"{name} has several final layers; choose a network with one.")
    mean, std = config["mean"], config["std"]
    if in_channels != len(mean):  # timm sums or repeats the first kernels likewise
        mean = [sum(mean) / len(mean)] * in_channels
        std = [sum(std) / len(std)] * in_channels
    return ImageClassifier(backbone, num_classes, in_channels, mean, std)


def creation(
    name: str,
    num_classes: int,
    in_channels: int,
    image_size: int,
    patch_size: int | None = None,
) -> dict[str, Any]:
    """The arguments with which ``timm.create_model`` makes the bare network of ``timm/NAME``, without its weights."""
    arguments: dict[str, Any] = {
        "model_name": _timm_name(name),
        "num_classes": num_classes,
        "in_chans": in_channels,
    }
    # Only networks that are built for one image size know the option.
    fixed = pretrained_config(name).get("fixed_input_size")
    if fixed:
        arguments["img_size"] = image_size
    if patch_size is None:
        return arguments
    if not fixed:
        raise UserError(f"patch_size {patch_size} does not apply to {name}: it is for transformers.")
    if patch_size > image_size:
        raise UserError(f"patch_size {patch_size} exceeds the images' side of {image_size} pixels.")
    return {**arguments, "patch_size": patch_size}


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized and cropped for a network. Normalisation is left to the model.

    Attributes:
        crop: the side in pixels of the central square that the network sees.
        crop_pct: that side as a share of the resized image's side.
        mean: the mean of each channel, of images in [0, 1].
        std: the standard deviation of each channel.
        interpolation: "bicubic", "bilinear", ...
        crop_mode: "center"; in a few networks "squash", which ignores the aspect ratio, or "border", which pads.
    """

    crop: int
    crop_pct: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_mode: str = "center"

    @property
    def resize(self) -> int:
        """The side in pixels of the resized image, which is the shorter one where ``crop_mode`` is "center"."""
        return floor(self.crop / self.crop_pct)

    def apply(self, image: Image.Image) -> UInt8[Tensor, "3 {self.crop} {self.crop}"]:
        """Prepare an image. It is ready for the model once it is divided by 255."""
        transform = create_transform(
            input_size=(3, self.crop, self.crop),
            interpolation=self.interpolation,
            mean=self.mean,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            normalize=False,
        )
        return transform(image.convert("RGB"))  # type: ignore[no-any-return]


def preprocessing(name: str) -> Preprocessing:
    """The evaluation preprocessing of ``timm/NAME``, as its weights were published."""
    config = resolve_data_config({}, pretrained_cfg=pretrained_config(name))
    return Preprocessing(
        crop=config["input_size"][-1],
        crop_pct=config["crop_pct"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_mode=config["crop_mode"],
    )


def outputs(name: str) -> int:
    """The number of classes that the published weights of ``timm/NAME`` answer with."""
    return int(pretrained_config(name).get("num_classes", 1000))


def imagenet_names(name: str) -> list[str] | None:
    """The WordNet id of each output of the published weights of ``timm/NAME``; None where they are not ImageNet's."""
    subset = infer_imagenet_subset(pretrained_config(name))
    return ImageNetInfo(subset).label_names() if subset else None


def _timm_name(name: str) -> str:
    return name.removeprefix("timm/")


def pretrained_config(name: str) -> dict[str, Any]:
    """What timm knows of the weights of ``timm/NAME``. A name that timm does not have is refused."""
    short = _timm_name(name)
    if not timm.is_model(short):
        known = timm.list_models()
        close = difflib.get_close_matches(short.split(".")[0], known, n=5, cutoff=0) or known[:5]
        raise UserError(f"timm has no network {short!r}. {nearest(short, close)}")
    try:
        config = timm.get_pretrained_cfg(short)
    except RuntimeError as error:  # the network is known, so the tag behind the dot is wrong
        tags = timm.list_pretrained(short.split(".")[0] + ".*")
        raise UserError(f"timm has no weights {short!r}. {nearest(short, tags)}") from error
    return config.to_dict() if config is not None else {}
