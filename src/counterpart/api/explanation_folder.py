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

from ..data.transforms import resize_maps
from ..errors import UserError
from ..part_colours import coloured_parts
from ..report.explanation_page import ExplainedImage, render_page
from ..report.panel import as_bytes, coloured, stretched
from ..saliency.agreement import area
from ..spreadsheets import CsvWriter
from .explanation_tensors import ExplanationTensors

SHARE = 0.5  # of a map in a picture where it lies over the photograph
ARRAYS = (
    "maps", "radius", "mask", "attacked", "perturbation", "labels", "clean", "fooled", "overlap", "correlation",
    "deletion", "insertion", "attacked_maps", "attacked_radius", "parts", "attacked_parts",
)  # fmt: skip
COLUMNS = (
    "image", "class explained", "prediction", "confidence", "prediction under attack", "confidence under attack",
    "overlap of masks", "rank correlation of maps", "deletion", "insertion",
)  # fmt: skip


def write_explanation(
    explanation: ExplanationTensors, folder: Path, names: list[str], classes: Sequence[str] | None
) -> Path:
    """Write everything that an explanation holds; the folder is complete or not there.

    Raises:
        UserError: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder} exists: name a folder that does not, or remove it.")
    count = len(explanation.labels)
    names = names or [f"image {number + 1}" for number in range(count)]
    classes = (
        [str(number) for number in range(explanation.clean.shape[1])] if classes is None else list(classes)
    )
    if len(names) != count or len(classes) != explanation.clean.shape[1]:
        raise UserError(
            f"{len(names)} names and {len(classes)} classes were given for {count} images and "
            f"{explanation.clean.shape[1]} classes."
        )
    rows = [row_of_table(explanation, number, names[number], classes) for number in range(count)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".explain-") as place:
            draft = Path(place) / "folder"
            (draft / "pictures").mkdir(parents=True)
            explained = [
                ExplainedImage(row, _write_pictures(explanation, number, draft))
                for number, row in enumerate(rows)
            ]
            arrays = {name: getattr(explanation, name) for name in ARRAYS}
            there = {name: value.cpu().numpy() for name, value in arrays.items() if value is not None}
            np.savez_compressed(draft / "arrays.npz", **there)
            _write_table(draft / "explanation.csv", rows)
            page = render_page(
                explained,
                summarise(explanation, classes),
                _mean(explanation.deletion),
                _mean(explanation.insertion),
            )
            (draft / "index.html").write_text(page, encoding="utf-8")
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"Could not write {folder}: {error.strerror or error}.") from error
    return folder


def summarise(explanation: ExplanationTensors, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Means over the images of each class that was explained, and over all: a mapping for each, in that order."""
    groups = [(classes[k], explanation.labels == k) for k in sorted(set(explanation.labels.tolist()))]
    if len(groups) > 1:
        groups.append(("all", torch.ones_like(explanation.labels, dtype=torch.bool)))
    changed = (explanation.clean.argmax(dim=1) != explanation.fooled.argmax(dim=1)).float()
    columns = {
        "answers that change": changed,
        "overlap of masks": explanation.overlap,
        "rank correlation of maps": explanation.correlation,
        "deletion": None if explanation.deletion is None else area(explanation.deletion),
        "insertion": None if explanation.insertion is None else area(explanation.insertion),
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


def row_of_table(
    explanation: ExplanationTensors, number: int, name: str, classes: Sequence[str]
) -> dict[str, Any]:
    """The line of the table for one image."""
    clean, fooled = explanation.clean[number], explanation.fooled[number]
    correlation = explanation.correlation
    curves = (explanation.deletion, explanation.insertion)
    areas = [None if curve is None else float(area(curve[number : number + 1])) for curve in curves]
    values = (
        name, classes[int(explanation.labels[number])], classes[int(clean.argmax())], float(clean.max()),
        classes[int(fooled.argmax())], float(fooled.max()), float(explanation.overlap[number]),
        None if correlation is None else float(correlation[number]), *areas,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _write_pictures(explanation: ExplanationTensors, number: int, folder: Path) -> dict[str, str]:
    """Write the pictures of one image, and give for each what it shows and its path within the folder."""
    image, attacked = explanation.images[number], explanation.attacked[number]
    largest = float(explanation.radius[number].max()) or 1.0
    moved = 0.5 + (attacked - image) / (2 * largest)
    radius = explanation.radius[number].amax(dim=0)
    low = float(radius.min())
    radius = (radius - low) / (largest - low) if low < largest else torch.ones_like(radius)
    pictures = {"image": _photograph(image)}
    if explanation.maps is not None:
        pictures["map"] = overlay(image, explanation.maps[number])
    pictures["radius"] = coloured(radius.cpu().numpy())
    pictures["attacked"] = _photograph(attacked)
    if explanation.attacked_maps is not None:
        pictures["map under attack"] = overlay(attacked, explanation.attacked_maps[number])
    pictures["perturbation"] = _photograph(moved)
    for title, parts in (("parts", explanation.parts), ("parts under attack", explanation.attacked_parts)):
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
