"""Networks by name, all as classifiers of images in [0, 1]."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import UserError, nearest
from .cifar_resnet import preact_resnet18, resnet18, wide_resnet
from .deepmind_resnet import dm_preact_resnet18, dm_wide_resnet
from .normalize import Backbone, ImageClassifier
from .small_cnn import mnist_cnn, small_cnn

MODELS: dict[str, Callable[..., Backbone]] = {
    "resnet18": resnet18,
    "preact-resnet18": preact_resnet18,
    "preact-resnet18-fast": partial(preact_resnet18, early_shortcut=True),
    "dm-preact-resnet18": dm_preact_resnet18,
    "mnist-cnn": mnist_cnn,
    "small-cnn": small_cnn,
}
WIDE: dict[str, Callable[..., Backbone]] = {"wrn": wide_resnet, "dm-wrn": dm_wide_resnet}
ONE_SIZE = ("mnist-cnn", "small-cnn")


def create(
    name: str,
    num_classes: int,
    *,
    width: int | None = None,
    in_channels: int = 3,
    image_size: int = 32,
    patch_size: int | None = None,
    pretrained: bool = False,
    parts: Mapping[str, Any] | None = None,
) -> ImageClassifier:
    """A freshly initialised network (from torch's default generator), or one with pretrained weights.

    Args:
        name: one of ``MODELS``, ``wrn-D-K`` or ``dm-wrn-D-K`` such as ``wrn-28-10``, ``timm/NAME`` or ``parts/HEAD``.
        num_classes: number of classes.
        width: channels of the first stage; default as published. Not for timm's networks and part models.
        in_channels: channels of the images.
        image_size: side of the images in pixels, for networks that are built for one size (transformers,
            ``ONE_SIZE``).
        patch_size: side of the patches in pixels, for timm's transformers.
        pretrained: start from pretrained weights; timm's networks and the encoders of part models only.
        parts: what else makes a part model: the options of ``part_model.create``.
    """
    if name.startswith(("timm/", "parts/")) and width is not None:
        raise UserError(f"width {width} does not apply to {name}: timm's networks have fixed widths.")
    if name.startswith("timm/"):
        from . import backbones

        return backbones.create(name, num_classes, in_channels, image_size, pretrained, patch_size)
    if patch_size is not None:
        raise UserError(f"patch_size {patch_size} does not apply to {name}: it is for timm's transformers.")
    if name.startswith("parts/"):
        from . import part_model

        if parts is None:
            raise UserError(f"{name} needs images with annotated parts, and this data set has none.")
        return part_model.create(name, num_classes, in_channels, image_size, pretrained, **parts)
    if pretrained:
        raise UserError(
            f"{name} has no pretrained weights here; name a timm/ network, or give weights to start from."
        )
    options = {"in_channels": in_channels, **({} if width is None else {"width": width})}
    if name in ONE_SIZE:
        options["image_size"] = image_size
    return ImageClassifier(builder(name)(num_classes, **options), num_classes, in_channels)


def builder(name: str) -> Callable[..., Backbone]:
    """What makes the bare network of a name, timm's excepted, from the number of classes and options."""
    wide = re.fullmatch(r"(wrn|dm-wrn)-(\d+)-(\d+)", name)
    if wide:
        family, depth, widen = wide[1], int(wide[2]), int(wide[3])
        if depth < 10 or (depth - 4) % 6 or widen < 1:
            closest = min(range(10, 1000, 6), key=lambda known: abs(known - depth))
            raise UserError(
                f"no network {name}: the D of {family}-D-K is 10, 16, 22, 28, 34, ... and K at least 1. "
                f"Did you mean '{family}-{closest}-{max(widen, 1)}'?"
            )
        return partial(WIDE[family], depth, widen)
    if name not in MODELS:
        hint = nearest(name, [*MODELS, "wrn-28-10", "wrn-34-10", "dm-wrn-28-10", "timm/resnet50"])
        raise UserError(f"no network is called {name!r}. {hint}")
    return MODELS[name]
