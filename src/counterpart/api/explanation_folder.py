"""An explanation as a folder: pictures, arrays, a table, and a page that shows them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from .. import devices
from ..data.transforms import as_floats, resize_maps
from ..errors import UserError
from ..jobs.named_models import open_named
from ..jobs.prediction import files_of, read_file
from ..part_colours import coloured_parts
from ..report.explanation_page import ExplainedImage, render_page
from ..report.panel import as_bytes, coloured, stretched
from ..saliency.agreement import area
from ..spreadsheets import CsvWriter
from .explanation import Explanation, explain

SHARE = 0.5  # of a map in a picture where it lies over the photograph
ARRAYS = (
    "maps", "radius", "mask", "attacked", "perturbation", "labels", "clean", "fooled", "overlap", "correlation",
    "deletion", "insertion", "attacked_maps", "attacked_radius", "parts", "attacked_parts",
)  # fmt: skip
COLUMNS = (
    "image", "class explained", "prediction", "confidence", "prediction under attack", "confidence under attack",
    "overlap of masks", "rank correlation of maps", "deletion", "insertion",
)  # fmt: skip


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
    given = {"eps": settings.pop("attack.eps", 8 / 255), "eps_low": settings.pop("mask.eps_low", None)}
    seed = int(settings.pop("seed", 0))
    model = named.model.to(place)
    seen = explain(model, as_floats(pixels), **given, steps=steps, seed=seed, changes=settings)
    return seen, [file.name for file in files], named.classes


def write_explanation(
    seen: Explanation, folder: Path, names: list[str], classes: Sequence[str] | None
) -> Path:
    """Write everything that an explanation holds; the folder is complete or not there.

    Raises:
        UserError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: name a folder that does not, or remove it.")
    count = len(seen.labels)
    names = names or [f"image {number + 1}" for number in range(count)]
    classes = [str(number) for number in range(seen.clean.shape[1])] if classes is None else list(classes)
    if len(names) != count or len(classes) != seen.clean.shape[1]:
        raise UserError(
            f"{len(names)} names and {len(classes)} classes were given for {count} images and {seen.clean.shape[1]} "
            "classes."
        )
    rows = [_row(seen, number, names[number], classes) for number in range(count)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".explain-") as place:
            draft = Path(place) / "folder"
            (draft / "pictures").mkdir(parents=True)
            shown = [
                ExplainedImage(row, _write_pictures(seen, number, draft)) for number, row in enumerate(rows)
            ]
            arrays = {name: getattr(seen, name) for name in ARRAYS}
            there = {name: value.cpu().numpy() for name, value in arrays.items() if value is not None}
            np.savez_compressed(draft / "arrays.npz", **there)
            _write_table(draft / "explanation.csv", rows)
            page = render_page(shown, summarise(seen, classes), _mean(seen.deletion), _mean(seen.insertion))
            (draft / "index.html").write_text(page, encoding="utf-8")
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"Could not write {folder}: {error.strerror or error}.") from error
    return folder


def lines_of_explanation(seen: Explanation, names: Sequence[str], classes: Sequence[str] | None) -> list[str]:
    """A line for each image: what the model answers, also under attack, and how far its explanation moves."""
    lines = []
    labels = [str(number) for number in range(seen.clean.shape[1])] if classes is None else classes
    for number, name in enumerate(names):
        row = _row(seen, number, name, labels)
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
    seen, names, _ = explain_files(target, images, device=device, size=size, steps=1, changes=changes)
    if seen.maps is None:
        raise UserError(f"{target} shows no map.")
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        picture = overlay(seen.images[number], seen.maps[number])
        Image.fromarray(picture).save(folder / f"{number + 1:04d}-{Path(name).stem}.png")


def summarise(seen: Explanation, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Means over the images of each class that was explained, and over all: a mapping for each, in that order."""
    groups = [(classes[k], seen.labels == k) for k in sorted(set(seen.labels.tolist()))]
    if len(groups) > 1:
        groups.append(("all", torch.ones_like(seen.labels, dtype=torch.bool)))
    changed = (seen.clean.argmax(dim=1) != seen.fooled.argmax(dim=1)).float()
    columns = {
        "answers that change": changed,
        "overlap of masks": seen.overlap,
        "rank correlation of maps": seen.correlation,
        "deletion": None if seen.deletion is None else area(seen.deletion),
        "insertion": None if seen.insertion is None else area(seen.insertion),
    }
    return [
        {
            "class": name,
            "images": int(here.sum()),
            **{title: _mean_where(values, here) for title, values in columns.items()},
        }
        for name, here in groups
    ]


def overlay(image: Tensor, values: Tensor) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph (C, H, W) with a map (h, w) over it, in colours from its least to its most important place."""
    size = (image.shape[1], image.shape[2])
    enlarged = resize_maps(values[None], size).cpu().numpy()
    colours = coloured(stretched(enlarged))[0].astype(np.float64)
    photograph = as_bytes(image.expand(3, -1, -1)[None].cpu().numpy())[0].astype(np.float64)
    mixed: np.ndarray = ((1 - SHARE) * photograph + SHARE * colours).round().astype(np.uint8)
    return mixed


def _row(seen: Explanation, number: int, name: str, classes: Sequence[str]) -> dict[str, Any]:
    """The line of the table for one image."""
    clean, fooled = seen.clean[number], seen.fooled[number]
    correlation = seen.correlation
    curves = (seen.deletion, seen.insertion)
    areas = [None if curve is None else float(area(curve[number : number + 1])) for curve in curves]
    values = (
        name, classes[int(seen.labels[number])], classes[int(clean.argmax())], float(clean.max()),
        classes[int(fooled.argmax())], float(fooled.max()), float(seen.overlap[number]),
        None if correlation is None else float(correlation[number]), *areas,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _write_pictures(seen: Explanation, number: int, folder: Path) -> dict[str, str]:
    """Write the pictures of one image, and give for each what it shows and its path within the folder."""
    image, attacked = seen.images[number], seen.attacked[number]
    largest = float(seen.radius[number].max()) or 1.0
    moved = 0.5 + (attacked - image) / (2 * largest)
    radius = seen.radius[number].amax(dim=0)
    low = float(radius.min())
    radius = (radius - low) / (largest - low) if low < largest else torch.ones_like(radius)
    pictures = {"image": _photograph(image)}
    if seen.maps is not None:
        pictures["map"] = overlay(image, seen.maps[number])
    pictures["radius"] = coloured(radius.cpu().numpy())
    pictures["attacked"] = _photograph(attacked)
    if seen.attacked_maps is not None:
        pictures["map under attack"] = overlay(attacked, seen.attacked_maps[number])
    pictures["perturbation"] = _photograph(moved)
    for title, parts in (("parts", seen.parts), ("parts under attack", seen.attacked_parts)):
        if parts is not None:
            pictures[title] = coloured_parts(parts[number].cpu().numpy())
    paths = {}
    for title, picture in pictures.items():
        paths[title] = f"pictures/{number + 1:04d}-{title.replace(' ', '-')}.png"
        Image.fromarray(picture).save(folder / paths[title])
    return paths


def _photograph(image: Tensor) -> UInt8[np.ndarray, "h w 3"]:
    """An image (C, H, W) of one or three channels as a picture."""
    picture: np.ndarray = as_bytes(image.expand(3, -1, -1)[None].cpu().numpy())[0]
    return picture


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = CsvWriter(file)
        table.writerow(COLUMNS)
        for row in rows:
            table.writerow(["" if value is None else value for value in row.values()])


def _mean(curve: Tensor | None) -> list[float]:
    """The mean of the curves of all images; empty without a curve."""
    return [] if curve is None else curve.mean(dim=0).tolist()


def _mean_where(values: Tensor | None, here: Tensor) -> float | None:
    """The mean of some values, NaN passed over; None where there is none."""
    if values is None:
        return None
    some = values.cpu()[here.cpu()]
    some = some[some.isfinite()]
    return float(some.mean()) if len(some) else None
