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
from .explanation_summary import names_of_classes, pointing_table, summarise
from .explanation_tensors import ExplanationTensors

SHARE = 0.5  # of a map in a picture where it lies over the photograph
FEW_PIXELS = 100  # pictures of a shorter side are enlarged without being blurred
ARRAYS = (
    "maps", "radius", "mask", "attacked", "perturbation", "labels", "clean", "fooled", "overlap", "correlation",
    "deletion", "insertion", "attacked_maps", "attacked_radius", "parts", "attacked_parts", "objects", "pointing",
    "attacked_pointing",
)  # fmt: skip
COLUMNS = (
    "image", "class explained", "prediction", "confidence", "prediction under attack", "confidence under attack",
    "overlap of masks", "rank correlation of maps", "deletion", "insertion", "pointing", "pointing under attack",
    "share of the object",
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
    classes = names_of_classes(explanation, classes)
    if len(names) != count:
        raise UserError(f"{len(names)} names were given for {count} images.")
    rows = [row_of_table(explanation, number, names[number], classes) for number in range(count)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".explain-") as place:
            draft = Path(place) / "folder"
            (draft / "pictures").mkdir(parents=True)
            small = max(explanation.images.shape[2:]) < FEW_PIXELS
            explained = [
                ExplainedImage(row, _write_pictures(explanation, number, draft), small)
                for number, row in enumerate(rows)
            ]
            arrays = {name: getattr(explanation, name) for name in ARRAYS}
            there = {name: value.cpu().numpy() for name, value in arrays.items() if value is not None}
            np.savez_compressed(draft / "arrays.npz", **there)
            _write_table(draft / "explanation.csv", rows)
            means, pointing = summarise(explanation, classes), pointing_table(explanation, classes)
            _write_table(draft / "classes.csv", _joined(means, pointing))
            curves = (_mean(explanation.deletion), _mean(explanation.insertion))
            page = render_page(explained, means, pointing, curves)
            (draft / "index.html").write_text(page, encoding="utf-8")
            draft.rename(folder)
    except OSError as error:
        raise UserError(f"Could not write {folder}: {error.strerror or error}.") from error
    return folder


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
    by_image = (
        explanation.correlation, _area(explanation.deletion), _area(explanation.insertion), explanation.pointing,
        explanation.attacked_pointing, explanation.object_share,
    )  # fmt: skip
    values = (
        name, classes[int(explanation.labels[number])], classes[int(clean.argmax())], float(clean.max()),
        classes[int(fooled.argmax())], float(fooled.max()), float(explanation.overlap[number]),
        *(_finite(values, number) for values in by_image),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _write_pictures(explanation: ExplanationTensors, number: int, folder: Path) -> list[dict[str, str]]:
    """Write the pictures of one image, in pairs: for each what it shows, and its path within the folder."""
    pairs = []
    for pair in _pictures(explanation, number):
        paths = {}
        for title, picture in pair.items():
            paths[title] = f"pictures/{number + 1:04d}-{title.replace(' ', '-')}.png"
            Image.fromarray(picture).save(folder / paths[title])
        pairs.append(paths)
    return pairs


def _pictures(explanation: ExplanationTensors, number: int) -> list[dict[str, UInt8[np.ndarray, "h w 3"]]]:
    """The pictures of one image, clean and attacked side by side."""
    image, attacked = explanation.images[number], explanation.attacked[number]
    largest = float(explanation.radius[number].max()) or 1.0
    pairs = [{"image": _photograph(image), "attacked": _photograph(attacked)}]
    if explanation.maps is not None and explanation.attacked_maps is not None:
        drawn = (
            overlay(image, explanation.maps[number]),
            overlay(attacked, explanation.attacked_maps[number]),
        )
        pairs.append(dict(zip(("map", "map under attack"), drawn, strict=True)))
    radii = (
        _coloured_radius(explanation.radius[number]),
        _coloured_radius(explanation.attacked_radius[number]),
    )
    pairs.append(dict(zip(("radius", "radius under attack"), radii, strict=True)))
    if explanation.parts is not None and explanation.attacked_parts is not None:
        parts = (explanation.parts[number], explanation.attacked_parts[number])
        seen = (coloured_parts(each.cpu().numpy()) for each in parts)
        pairs.append(dict(zip(("parts", "parts under attack"), seen, strict=True)))
    pairs.append({"perturbation": _photograph(0.5 + (attacked - image) / (2 * largest))})
    if explanation.objects is not None:
        pairs[-1]["object"] = _photograph(image * (1 + 3 * explanation.objects[number]) / 4)
    return pairs


def _coloured_radius(radius: Tensor) -> UInt8[np.ndarray, "h w 3"]:
    """A radius (1 or C, H, W) from dark, its least, to bright, its largest; of one alone all bright."""
    plane = radius.amax(dim=0)
    low, high = plane.aminmax()
    shares = (plane - low) / (high - low) if low < high else torch.ones_like(plane)
    picture: np.ndarray = coloured(shares.cpu().numpy())
    return picture


def _photograph(image: Tensor) -> UInt8[np.ndarray, "h w 3"]:
    """An image (C, H, W) of one or three channels as a picture."""
    picture: np.ndarray = as_bytes(image.expand(3, -1, -1)[None].cpu().numpy())[0]
    return picture


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = CsvWriter(file)
        table.writerow(rows[0])
        for row in rows:
            table.writerow(["" if value is None else value for value in row.values()])


def _joined(
    means: Sequence[Mapping[str, Any]], pointing: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The lines of a table by class: means, and what is known of pointing, with the ends of an interval apart."""
    by_class = {row["class"]: row for row in pointing}
    rows = []
    for row in means:
        joined = dict(row)
        for title, value in (
            by_class.get(row["class"]) or dict.fromkeys(pointing[0] if pointing else ())
        ).items():
            if title == "images":
                joined["images with an object"] = value or 0
            elif title.endswith("interval"):
                what = title.removesuffix(", interval")
                joined[f"{what}, low"], joined[f"{what}, high"] = value or (None, None)
            elif title != "class":
                joined[title] = value
        rows.append(joined)
    return rows


def _area(curve: Tensor | None) -> Tensor | None:
    """The area under each curve."""
    return None if curve is None else area(curve)


def _finite(values: Tensor | None, number: int) -> float | None:
    """The value of one image; None where there is none."""
    if values is None or not bool(values[number].isfinite()):
        return None
    return float(values[number])


def _mean(curve: Tensor | None) -> list[float]:
    """The mean of the curves of all images; empty without a curve."""
    return [] if curve is None else curve.mean(dim=0).tolist()
