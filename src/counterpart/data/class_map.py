"""Labels of one data set as outputs of a model that was trained on another."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import UserError, nearest
from .image_sets import ImageSet


def mapped(images: ImageSet, path: Path | None, outputs: Sequence[str]) -> ImageSet:
    """The images with labels that index the outputs of a model.

    Args:
        images: whose labels index their own classes.
        path: JSON ``{class of the images: index of the model's output}``, or None where both have the same
            classes in the same order.
        outputs: name of each output of the model.

    Returns:
        The images; their classes are the outputs, under the images' own names where these are mapped.

    Raises:
        UserError: if there is no map and the classes differ, or the map does not fit.
    """
    if path is None:
        if list(images.classes) == list(outputs):
            return images
        raise UserError(
            f"The model answers with {len(outputs)} classes ({', '.join(outputs[:3])}, ...), the data has "
            f"{len(images.classes)} ({', '.join(images.classes[:3])}, ...). Evaluate the model on its own data, or say "
            'which output belongs to which class: --data.class-map FILE.json with {"class": output index}.'
        )
    indices = _read(path)
    for name in indices:
        if name not in images.classes:
            raise UserError(
                f"{path} maps {name!r}, which is no class of the data. {nearest(name, images.classes)}"
            )
    for name in images.classes:
        if name not in indices:
            raise UserError(f"{path} does not map the class {name!r} of the data.")
    for name, index in indices.items():
        if not 0 <= index < len(outputs):
            raise UserError(
                f"{path} maps {name!r} to output {index}; the model has outputs 0 to {len(outputs) - 1}."
            )
    if len(set(indices.values())) < len(indices):
        raise UserError(f"{path} maps two classes to the same output.")
    table = torch.tensor([indices[name] for name in images.classes], device=images.labels.device)
    names = list(outputs)
    for name, index in indices.items():
        names[index] = name
    return replace(images, labels=table[images.labels], classes=tuple(names))


def _read(path: Path) -> dict[str, int]:
    try:
        loaded = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read the class map {path}: {error.strerror}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The class map {path} is not valid JSON: {error}.") from None
    whole = isinstance(loaded, dict) and all(type(index) is int for index in loaded.values())
    if not whole:
        raise UserError(f'The class map {path} must look like {{"cat": 281, "dog": 207}}.')
    return dict(loaded)
