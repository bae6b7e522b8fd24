"""Explanations of image files by any model that has a name, and answers with maps, as commands ask for them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .. import devices
from ..data.parts import decode_mask
from ..data.parts_folder import mask_beside
from ..data.transforms import as_floats
from ..jobs.named_models import NamedModel, open_each, open_named
from ..jobs.notes import say
from ..jobs.prediction import Prediction, files_of, predict_files, read_file
from ..report.class_names import called
from .explanation import PORTION, Explanation, explain, map_drawer
from .explanation_folder import overlay, row_of_table
from .explanation_summary import names_of_classes, pointing_table, summarise


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
    masks = _read_masks(named, files, size, pixels)
    model = named.model.to(place)
    explanation = explain(
        model, as_floats(pixels), **radii, steps=steps, seed=seed, masks=masks, changes=settings
    )
    return explanation, [file.name for file in files], named.classes


def _read_masks(named: NamedModel, files: Sequence[Path], size: int | None, pixels: Tensor) -> Tensor | None:
    """The part ids (B, H, W) of images that lie in folders of parts, fitted as the images are; None without a mask."""
    masks = [mask_beside(file) for file in files]
    if not any(masks):
        return None
    if size is None and named.prepare is not None:
        say(["part masks cannot follow this network's own way of resizing: give --size to use them."])
        return None
    side = size or named.size
    return torch.stack(
        [
            torch.zeros(pixels.shape[2:], dtype=torch.int32)
            if mask is None
            else decode_mask(mask, file, side).int()
            for mask, file in zip(masks, files, strict=True)
        ]
    )


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
            f"{name}: {called(row['prediction'])} ({row['confidence']:.1%}), under attack "
            f"{called(row['prediction under attack'])} ({row['confidence under attack']:.1%}); {moved}"
        )
    return lines


def lines_of_summary(explanation: Explanation, classes: Sequence[str] | None) -> list[str]:
    """What is said of all images: means, and how often the maps point at the object where masks show one."""
    named = names_of_classes(explanation, classes)
    means = summarise(explanation, named)[-1]
    lines = [
        f"Of {means['images']:,} images {means['answers that change']:.1%} get another answer under attack; mean "
        f"overlap of masks {means['overlap of masks']:.2f}."
    ]
    for row in pointing_table(explanation, named)[-1:]:
        said = []
        for title in ("pointing", "pointing under attack"):
            low, high = row[f"{title}, interval"]
            said.append(f"{row[title]:.1%} ({low:.1%} to {high:.1%})")
        lines.append(
            f"The map's highest place lies in the object in {said[0]} of {row['images']:,} images with masks, under "
            f"attack in {said[1]}; the object takes {row['chance']:.1%} of them, which is chance."
        )
    return lines


def predict_and_draw(
    target: str,
    images: Sequence[Path],
    *,
    device: str = "auto",
    size: int | None = None,
    folder: Path | None = None,
    layer: str | None = None,
) -> list[Prediction]:
    """The answers to image files, and a folder of pictures with the map of each answer over its image.

    Args:
        target: as ``jobs.predict`` takes it.
        images: image files, and folders of them.
        device: the device to compute on.
        size: the side in pixels to which images are resized and cropped, for models that do not say theirs.
        folder: where pictures go, those of each run into a folder of its own where there are several; None for none.
        layer: the module at whose output maps are drawn.
    """
    models, files, place = open_each(target), files_of(images), devices.resolve(device)
    predictions = predict_files(models, files, place, size)
    if folder is not None:
        for named in models:
            _write_maps(named, files, folder / (named.run or ""), place, size, layer)
    return predictions


def _write_maps(
    named: NamedModel,
    files: Sequence[Path],
    folder: Path,
    place: torch.device,
    size: int | None,
    layer: str | None,
) -> None:
    """Write a picture of each image with the map of the predicted class over it, named as the image file is."""
    changes = {} if layer is None else {"mask.layer": layer}
    folder.mkdir(parents=True, exist_ok=True)
    draw = None
    for start in range(0, len(files), PORTION):
        portion = files[start : start + PORTION]
        images = as_floats(torch.stack([read_file(named, file, size) for file in portion]).to(place))
        if draw is None:
            draw = map_drawer(named.model, images, changes)
        for number, (file, image, values) in enumerate(
            zip(portion, images, draw(images), strict=True), start + 1
        ):
            Image.fromarray(overlay(image, values)).save(folder / f"{number:04d}-{file.stem}.png")
