"""COCO's JSON: its tables checked, its polygons and run lengths as masks, pixel for pixel as COCO draws them.

Source: Lin et al. 2014, "Microsoft COCO: common objects in context", and the format's own API (its mask routines).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from ..errors import UserError
from ..parsing import read_json

KINDS: dict[str, type] = {  # the types of the fields that are looked up or opened
    "id": int, "image_id": int, "category_id": int, "height": int, "width": int, "file_name": str,
}  # fmt: skip
FAR = 100  # sizes of the image; each step along a border takes memory
REFINED = 5  # polygons are drawn on a grid that is this much finer, so that a pixel is in if its middle is


def read(path: Path) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """Read a COCO file: its images and categories by id, and its annotations.

    Raises:
        UserError: if the file is missing, damaged, or names an id twice or one that is not there.
    """
    try:
        loaded = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {getattr(error, 'strerror', None) or error}.") from None
    tables: dict[str, list[dict[str, Any]]] = {}
    for name, needed in (
        ("images", ("id", "file_name", "height", "width")),
        ("categories", ("id", "name")),
        ("annotations", ("id", "image_id", "category_id", "segmentation")),
    ):
        rows = loaded.get(name) if isinstance(loaded, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path} is no COCO annotation: it has no list {name!r}.")
        for row in rows:
            if lacking := [key for key in needed if key not in row]:
                raise UserError(f"{path}: one of its {name} (id {row.get('id')}) has no {lacking[0]!r}.")
            for key in needed:
                kind = KINDS.get(key)
                if kind is not None and not isinstance(row[key], kind):
                    raise UserError(
                        f"{path}: one of its {name} (id {row['id']}) has {key} {row[key]!r}, "
                        f"which is no {kind.__name__}."
                    )
        tables[name] = rows
    by_id = {name: _by_id(path, name, rows) for name, rows in tables.items()}
    for row in tables["annotations"]:
        for key, table in (("image_id", "images"), ("category_id", "categories")):
            if row[key] not in by_id[table]:
                raise UserError(f"{path}: annotation {row['id']} has {key} {row[key]}, which is not there.")
    return by_id["images"], by_id["categories"], tables["annotations"]


def _by_id(path: Path, name: str, rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    by_id: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["id"] in by_id:
            raise UserError(f"{path}: two of its {name} have the id {row['id']}.")
        by_id[row["id"]] = row
    return by_id


def mask(segmentation: object, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The mask of a ``segmentation``, which holds polygons, or run lengths that may be compressed.

    Raises:
        ValueError: if it is none of these, or run lengths have another size.
    """
    if isinstance(segmentation, Mapping):
        if segmentation.get("size") != [height, width]:
            raise ValueError(
                f"run lengths of size {segmentation.get('size')} in an image of {[height, width]}"
            )
        counts = segmentation.get("counts")
        return _from_runs(_decompressed(counts) if isinstance(counts, str) else counts, height, width)
    if isinstance(segmentation, Sequence) and not isinstance(segmentation, str):
        covered = np.zeros((height, width), dtype=np.bool_)
        for corners in segmentation:
            covered |= _polygon(_corners(corners, height, width), height, width)
        return covered
    raise ValueError(f"a segmentation of type {type(segmentation).__name__}")


def _corners(numbers: object, height: int, width: int) -> NDArray[np.float64]:
    """The corners (n, 2) of a polygon; four numbers are a box x, y, width, height, as COCO's own code takes them."""
    try:
        points = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 1 or len(points) % 2 or len(points) < 4 or not np.isfinite(points).all():
        raise ValueError("a polygon must be a list x1, y1, x2, y2, ...")
    if len(points) == 4:
        x, y, w, h = points
        points = np.array([x, y, x, y + h, x + w, y + h, x + w, y])
    if np.abs(points).max() > FAR * (height + width):
        raise ValueError(f"a corner of a polygon lies more than {FAR} times the size of the image away")
    return points.reshape(-1, 2)


def _polygon(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """Fill a polygon (n, 2) of x and y, by the crossings of its border with the columns of pixels.

    The border is walked on a fine grid, one step along its longer axis at a time; wherever a step enters another
    column of pixels, the column's fill changes at that height.
    """
    corners = (REFINED * points + 0.5).astype(np.int64)  # towards zero, as C casts
    crossings = []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        if (dx >= dy and x0 > x1) or (dx < dy and y0 > y1):
            x0, x1, y0, y1, back = x1, x0, y1, y0, True
        else:
            back = False
        steps = np.arange(max(dx, dy) + 1)
        if dx >= dy:
            slope = (y1 - y0) / dx if dx else 0.0
            xs, ys = x0 + steps, (y0 + slope * steps + 0.5).astype(np.int64)
        else:
            slope = (x1 - x0) / dy
            ys, xs = y0 + steps, (x0 + slope * steps + 0.5).astype(np.int64)
        crossings.append(np.stack([xs, ys], axis=1)[:: -1 if back else 1])
    u, v = np.concatenate(crossings).T
    moved = u[1:] != u[:-1]
    x = np.where(u[1:] < u[:-1], u[1:], u[1:] - 1)[moved]
    y = np.minimum(v[1:], v[:-1])[moved]
    column = (x + 0.5) / REFINED - 0.5
    whole = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((y[whole] + 0.5) / REFINED - 0.5, 0, height)).astype(np.int64)
    places = column[whole].astype(np.int64) * height + row
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return np.asarray(changes.cumsum() % 2 == 1).reshape(width, height).T


def _from_runs(counts: object, height: int, width: int) -> NDArray[np.bool_]:
    runs = np.asarray(counts)
    if (
        runs.ndim != 1
        or runs.dtype.kind not in "iu"
        or runs.min(initial=0) < 0
        or runs.max(initial=0) > height * width  # before the sum, which could pass 64 bits and come round
        or runs.sum() != height * width
    ):
        raise ValueError(f"run lengths that do not add up to {height} x {width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.asarray(np.repeat(values, runs)).reshape(width, height).T


def _decompressed(text: str) -> list[int]:
    """Decode run lengths from COCO's text.

    A character holds six bits: five of a number, the lowest first, and one that says whether the number goes on. From
    the fourth number on, the text holds the difference from the number two places before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text.encode():
        bits = character - 48
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs
