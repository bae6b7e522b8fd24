"""Explanations of image files by any model that has a name, as commands ask for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import devices
from ..data.transforms import as_floats
from ..errors import UserError
from ..jobs.named_models import open_named
from ..jobs.prediction import files_of, read_file
from .explanation import Explanation, explain
from .explanation_folder import overlay, row_of_table


def explain_files(
    target: str,
    images: Sequence[Path],
    *,
    device: str = "auto",
    size: int | None = None,
    steps: int = 20,
    changes: Mapping[str, Any] | None = None,
) -> tuple[Explanation, list[str], Sequence[str] | None]:
    """The explanation of image files, what each file is called, and the names of the model's classes.

    Args:
        target: the name of a model, as ``load`` takes it.
        images: image files, and folders of them.
        device: the device to compute on.
        size: the side in pixels to which images are resized and cropped, for models that do not say theirs.
        steps: the number of gradient steps that PGD takes.
        changes: settings of the attack, the mask and the map, such as {"attack.eps": "4/255"}.
    """
    files = files_of(images)
    named, place = open_named(target), devices.resolve(device)
    pixels = torch.stack([read_file(named, file, size) for file in files])
    settings = dict(changes or {})
    radii = {"eps": settings.pop("attack.eps", 8 / 255), "eps_low": settings.pop("mask.eps_low", None)}
    seed = int(settings.pop("seed", 0))
    model = named.model.to(place)
    explanation = explain(model, as_floats(pixels), **radii, steps=steps, seed=seed, changes=settings)
    return explanation, [file.name for file in files], named.classes


def lines_of_explanation(
    explanation: Explanation, names: Sequence[str], classes: Sequence[str] | None
) -> list[str]:
    """A line for each image: what the model answers, also under attack, and how far its explanation moves."""
    lines = []
    labels = [str(number) for number in range(explanation.clean.shape[1])] if classes is None else classes
    for number, name in enumerate(names):
        row = row_of_table(explanation, number, name, labels)
        moved = f"overlap of masks {row['overlap of masks']:.2f}"
        if row["rank correlation of maps"] is not None:
            moved += f", rank correlation of maps {row['rank correlation of maps']:.2f}"
        lines.append(
            f"{name}: {row['prediction']} ({row['confidence']:.1%}), under attack {row['prediction under attack']} "
            f"({row['confidence under attack']:.1%}); {moved}"
        )
    return lines


def write_maps(
    target: str, images: Sequence[Path], folder: Path, device: str, size: int | None, layer: str | None
) -> None:
    """Write a picture of each image with the map of the predicted class over it, named as the image file is."""
    changes = {} if layer is None else {"mask.layer": layer}
    explanation, names, _ = explain_files(target, images, device=device, size=size, steps=1, changes=changes)
    if explanation.maps is None:
        raise UserError(f"{target} shows no map.")
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture = overlay(explanation.images[number], explanation.maps[number])
        Image.fromarray(picture).save(folder / f"{number + 1:04d}-{Path(name).stem}.png")
