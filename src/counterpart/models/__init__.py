"""Networks by name, all as classifiers of images in [0, 1]."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from ..catalogue import MODELS, find, is_users_code
from ..errors import UserError
from .normalize import Backbone, ImageClassifier
from .user_code import create_users_model


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
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A freshly initialised network (from torch's default generator), or one with pretrained weights.

    Args:
        name: of the catalogue, such as ``resnet18``, ``wrn-28-10``, ``timm/NAME`` or ``parts/HEAD``; or the user's own,
            as ``module:function``.
        num_classes: number of classes.
        width: channels of the first stage; default as published. Not for timm's networks and part models.
        in_channels: channels of the images.
        image_size: side of the images in pixels, for networks that are built for one size, such as transformers.
        patch_size: side of the patches in pixels, for timm's transformers.
        pretrained: start from pretrained weights; timm's networks and the encoders of part models only.
        parts: what else makes a part model: see ``part_model.PartOptions``.
        options: what the user's own network, or the builder of one of ours, takes besides.
    """
    given: dict[str, Any] = {
        "name": name, "num_classes": num_classes, "width": width, "in_channels": in_channels, "image_size": image_size,
        "patch_size": patch_size, "parts": parts, "options": options,
    }  # fmt: skip
    model = _network(**given, pretrained=pretrained)
    if isinstance(model, ImageClassifier) and not is_users_code(name):
        model.described = {option: value for option, value in given.items() if value is not None}
    return model


def _network(
    name: str,
    num_classes: int,
    width: int | None,
    in_channels: int,
    image_size: int,
    patch_size: int | None,
    pretrained: bool,
    parts: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None,
) -> nn.Module:
    """What ``create`` makes, by the family that a name belongs to."""
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
        made_of = part_model.PartOptions(**parts)
        return part_model.create(name, num_classes, in_channels, image_size, pretrained, made_of)
    if name not in MODELS and not _match_wide_resnet(name):
        entry = find("models", name)
        if not entry.inside:
            return create_users_model(entry, num_classes, in_channels, image_size, options or {})
    if pretrained:
        raise UserError(
            f"{name} has no pretrained weights here; name a timm/ network, or give weights to start from."
        )
    sizes = {"in_channels": in_channels, **({} if width is None else {"width": width})}
    if name in MODELS and MODELS[name].facts.one_size:
        sizes["image_size"] = image_size
    return ImageClassifier(builder(name)(num_classes, **sizes, **(options or {})), num_classes, in_channels)


def builder(name: str) -> Callable[..., Backbone]:
    """What makes the bare network of a name, timm's excepted, from the number of classes and options."""
    wide = _match_wide_resnet(name)
    if not wide:
        entry = find("models", name)
        if entry.facts.family or entry.facts.needs_parts or not entry.inside:
            raise UserError(
                f"{name} is no network by itself: name one, such as {entry.facts.example or 'resnet18'}."
            )
        constructor: Callable[..., Backbone] = entry.load()
        return constructor
    family, depth, widen = wide[1], int(wide[2]), int(wide[3])
    if depth < 10 or (depth - 4) % 6 or widen < 1:
        closest = min(range(10, 1000, 6), key=lambda known: abs(known - depth))
        raise UserError(
            f"no network {name}: the D of {family}-D-K is 10, 16, 22, 28, 34, ... and K at least 1. "
            f"Did you mean '{family}-{closest}-{max(widen, 1)}'?"
        )
    return partial(MODELS[f"{family}-D-K"].load(), depth, widen)


def _match_wide_resnet(name: str) -> re.Match[str] | None:
    """The family, depth and width in the name of a wide ResNet."""
    return re.fullmatch(r"(wrn|dm-wrn)-(\d+)-(\d+)", name)
