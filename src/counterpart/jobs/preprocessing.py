"""How images come to the form in which a model takes them, as others need to know it."""

from typing import Any

from torch import nn

from ..models.normalize import description_of
from .target import Target

COLOURS = {1: "grey", 3: "red, green, blue"}


def how_images_are_read(target: Target) -> dict[str, Any]:
    """The shape, range and classes of the images that a model takes, and how image files are resized for it."""
    channels, height, width = target.images.shape
    return {
        "shape": ["batch", channels, height, width],
        "range": [0, 1],
        "colours": COLOURS.get(channels, "those of the data"),
        "normalisation": "inside the model",
        "resize": _resize(target),
        "classes": list(target.images.classes),
    }


def _resize(target: Target) -> Any:
    """How a file becomes an image of this size: in words, or as timm's own settings."""
    images = target.images
    if images.files is None:
        return f"none: images are taken as {images.name} has them"
    if images.prepare is None:
        return (
            f"the shorter side to {images.shape[1]} pixels (bilinear, antialiased), then the square in the centre is "
            "cropped"
        )
    name = _timm_name(target.model)
    if name is None:
        return "as the protocol of the benchmark says"
    from ..models import backbones  # timm takes long to import

    return {**vars(backbones.preprocessing(name)), "note": "mean and std are inside the model"}


def _timm_name(model: nn.Module) -> str | None:
    """The name of a network of timm; None for any other."""
    described = description_of(model)
    name = "" if described is None else str(described["name"])
    return name if name.startswith("timm/") else None
