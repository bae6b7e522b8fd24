"""Networks by name, all as classifiers of images in [0, 1]."""

import re
from collections.abc import Callable

from ..errors import UserError, nearest
from .cifar_resnet import preact_resnet18, resnet18, wide_resnet
from .normalize import Backbone, ImageClassifier

MODELS: dict[str, Callable[..., Backbone]] = {"resnet18": resnet18, "preact-resnet18": preact_resnet18}


def create(
    name: str,
    num_classes: int,
    *,
    width: int | None = None,
    in_channels: int = 3,
    image_size: int = 32,
    pretrained: bool = False,
) -> ImageClassifier:
    """A freshly initialised network (from torch's default generator), or one with timm's pretrained weights.

    Args:
        name: ``resnet18``, ``preact-resnet18``, ``wrn-D-K`` such as ``wrn-28-10``, or ``timm/NAME``.
        num_classes: number of classes.
        width: channels of the first stage; default as published. Not for timm's networks.
        in_channels: channels of the images.
        image_size: side of the images in pixels, for networks that are built for one size (transformers).
        pretrained: start from pretrained weights; timm's networks only.
    """
    if name.startswith("timm/"):
        if width is not None:
            raise UserError(f"width {width} does not apply to {name}: timm's networks have fixed widths.")
        from . import backbones

        return backbones.create(name, num_classes, in_channels, image_size, pretrained)
    if pretrained:
        raise UserError(
            f"{name} has no pretrained weights here; name a timm/ network, or give weights to start from."
        )
    wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if wide:
        depth, widen = int(wide[1]), int(wide[2])
        if depth < 10 or (depth - 4) % 6 or widen < 1:
            closest = min(range(10, 1000, 6), key=lambda known: abs(known - depth))
            raise UserError(
                f"no network {name}: the D of wrn-D-K is 10, 16, 22, 28, 34, ... and K at least 1. "
                f"Did you mean 'wrn-{closest}-{max(widen, 1)}'?"
            )
        backbone: Backbone = wide_resnet(depth, widen, num_classes, width=width, in_channels=in_channels)
    elif name in MODELS:
        options = {} if width is None else {"width": width}
        backbone = MODELS[name](num_classes, in_channels=in_channels, **options)
    else:
        hint = nearest(name, [*MODELS, "wrn-28-10", "wrn-34-10", "timm/resnet50"])
        raise UserError(f"no network is called {name!r}. {hint}")
    return ImageClassifier(backbone, num_classes, in_channels)
