"""COCO's JSON: its tables checked, its polygons and run lengths as masks, pixel for pixel as COCO draws them.

Source: Lin et al. 2014, "Microsoft COCO: common objects in context", and the format's own API (its mask routines).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from ..errors import UserError, unreadable
from ..parsing import read_json

KINDS: dict[str, type] = {  # the types of the fields that are looked up or opened
    "id": int, "image_id": int, "category_id": int, "height": int, "width": int, "file_name": str, "name": str,
}  # fmt: skip
TABLES: dict[str, tuple[str, ...]] = {  # the lists of a file, and what their rows need
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "segmentation"),
}
MOST_BITS = 60  # of a run length
LONGEST = 2**22  # steps along a border; a step takes some 60 bytes
SLIP, SLIP_SHARE = 2, 0.01  # pixels, and a share of all, that may be in doubt where a border crosses itself
FAR = 100  # sizes of the image; each step along a border takes memory
REFINED = 5  # polygons are drawn on a grid that is this much finer, so that a pixel is in if its middle is


def read(
    path: Path, refused: list[str] | None = None
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]], list[dict[str, Any]]]:
    """Read a COCO file: its images and categories by id, and its annotations.

    Args:
        path: the file.
        refused: takes a line for each annotation that is wrong and left out, in place of an error. An annotation may
            then lack its ``segmentation``, as boxes do in the exports of some tools.

    Raises:
        UserError: if the file is missing, damaged, or names an id twice or one that is not there.
    """
    try:
        loaded = read_json(path, limit="ANNOTATIONS")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in TABLES:
        rows = loaded.get(name) if isinstance(loaded, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path} is no COCO annotation: it has no list {name!r}.{_looks_like(loaded)}")
        tables[name] = rows
    needed = dict(TABLES)
    if refused is not None:
        needed["annotations"] = ("id", "image_id", "category_id")
    by_id: dict[str, dict[int, dict[str, Any]]] = {}
    for name, rows in tables.items():
        sound = []
        for row in rows:
            fault = _fault(row, needed[name], by_id)
            if fault is None:
                sound.append(row)
            elif refused is not None and name == "annotations":
                refused.append(f"{path}: annotation {row.get('id')} {fault}")
            else:
                raise UserError(f"{path}: one of its {name} (id {row.get('id')}) {fault}.")
        by_id[name] = _by_id(path, name, sound)
    return by_id["images"], by_id["categories"], list(by_id["annotations"].values())


def _looks_like(loaded: object) -> str:
    labelme = isinstance(loaded, dict) and "shapes" in loaded
    return " It looks like LabelMe's: counterpart data prepare labelme." if labelme else ""


def _fault(
    row: Mapping[str, Any], needed: Sequence[str], by_id: Mapping[str, Mapping[int, object]]
) -> str | None:
    """What is wrong with a row, as the end of a sentence; None if it can be used."""
    for key in needed:
        if key not in row:
            return f"has no {key!r}"
        kind = KINDS.get(key)
        if kind is not None and not isinstance(row[key], kind):
            return f"has {key} {row[key]!r:.60}, which is no {kind.__name__}"
        table = {"image_id": "images", "category_id": "categories"}.get(key)
        if table is not None and row[key] not in by_id[table]:
            return f"has {key} {row[key]}, which is not there"
    return None


def _by_id(path: Path, name: str, rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    by_id: dict[int, dict[str, Any]] = {}
    for row in rows:
        if row["id"] in by_id:
            raise UserError(f"{path}: two of its {name} have the id {row['id']}.")
        by_id[row["id"]] = row
    return by_id


def mask(segmentation: object, height: int, width: int, *, simple: bool = False) -> Bool[np.ndarray, "h w"]:
    """The mask of a ``segmentation``, which holds polygons, or run lengths that may be compressed.

    Args:
        segmentation: what a COCO file says.
        height: of the image, which the caller knows to be small enough for memory.
        width: of the image.
        simple: refuse a polygon whose border crosses itself, so that its inside is a matter of opinion.

    Raises:
        ValueError: if it is none of these, or run lengths have another size.
    """
    if isinstance(segmentation, Mapping):
        return _from_runs(_runs(segmentation, height, width), height, width)
    covered = np.zeros((height, width), dtype=np.bool_)
    for numbers in _polygons(segmentation):
        winding = _winding(_near(numbers, height, width), height, width)
        if simple:
            _refuse_crossing(winding)
        covered |= winding % 2 == 1
    return covered


def extent(segmentation: object, height: int, width: int) -> tuple[float, float, float, float]:
    """How far a ``segmentation`` reaches: top, left, bottom, right. No mask is drawn, so no memory is taken.

    Raises:
        ValueError: as ``mask``; and if it is empty.
    """
    if isinstance(segmentation, Mapping):
        runs = _checked_runs(_runs(segmentation, height, width), height, width)
        ends = np.cumsum(runs)[1::2]
        starts = ends - runs[1::2]
        starts, ends = starts[ends > starts], ends[ends > starts]
        if not len(starts):
            raise ValueError("run lengths that cover nothing")
        columns, last_columns = starts // height, (ends - 1) // height
        one_column = columns == last_columns
        top = np.where(one_column, starts % height, 0).min()
        bottom = np.where(one_column, (ends - 1) % height + 1, height).max()
        return float(top), float(columns.min()), float(bottom), float(last_columns.max() + 1)
    points = [_near(numbers, height, width) for numbers in _polygons(segmentation)]
    if not points:
        raise ValueError("no polygon")
    (left, top), (right, bottom) = np.concatenate(points).min(0), np.concatenate(points).max(0)
    return float(top), float(left), float(bottom), float(right)


def _runs(segmentation: Mapping[str, Any], height: int, width: int) -> object:
    if segmentation.get("size") != [height, width]:
        raise ValueError(
            f"run lengths of size {segmentation.get('size')!r:.60} in an image of {[height, width]}"
        )
    counts = segmentation.get("counts")
    return _decompressed(counts) if isinstance(counts, str) else counts


def _polygons(segmentation: object) -> Sequence[object]:
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError(f"a segmentation of type {type(segmentation).__name__}")
    return segmentation


def _refuse_crossing(winding: NDArray[np.int64]) -> None:
    """Refuse a border that goes round some pixels the other way, or twice, unless these are a slip of the hand."""
    inside = np.count_nonzero(winding)
    backwards = min(np.count_nonzero(winding > 0), np.count_nonzero(winding < 0))
    doubtful = backwards + np.count_nonzero(np.abs(winding) > 1)
    if doubtful > max(SLIP, SLIP_SHARE * inside):
        raise ValueError(
            f"a polygon that crosses itself ({doubtful:,} of its {inside:,} pixels are in doubt)"
        )


def corners(numbers: object) -> NDArray[np.float64]:
    """The corners (n, 2) of a polygon; four numbers are a box x, y, width, height, as COCO's own code takes them.

    Raises:
        ValueError: the numbers are no polygon.
    """
    try:
        points = np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim != 1 or len(points) % 2 or len(points) < 4 or not np.isfinite(points).all():
        raise ValueError("a polygon that is no list x1, y1, x2, y2, ...")
    if len(points) == 4:
        x, y, w, h = points
        points = np.array([x, y, x, y + h, x + w, y + h, x + w, y])
    return points.reshape(-1, 2)


def _near(numbers: object, height: int, width: int) -> NDArray[np.float64]:
    """The corners of a polygon that lies near its image."""
    points = corners(numbers)
    if np.abs(points).max() > FAR * (height + width):
        raise ValueError(f"a corner of a polygon lies more than {FAR} times the size of the image away")
    return points


def _winding(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """How often the border of a polygon (n, 2) of x and y goes round each pixel; odd is inside.

    The border is walked on a fine grid, one step along its longer axis at a time; wherever a step enters another
    column of pixels, the column's count changes at that height.
    """
    fine = (REFINED * points + 0.5).astype(np.int64)  # towards zero, as C casts
    lengths = np.abs(fine - np.roll(fine, -1, axis=0)).max(axis=1)
    if lengths.sum() > LONGEST:
        raise ValueError(f"a polygon whose border is {lengths.sum() // REFINED:,} pixels long")
    crossings = []
    for (x0, y0), (x1, y1) in zip(fine, np.roll(fine, -1, axis=0), strict=True):
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
    turn = np.sign(u[1:] - u[:-1])[moved]
    x = np.where(u[1:] < u[:-1], u[1:], u[1:] - 1)[moved]
    y = np.minimum(v[1:], v[:-1])[moved]
    column = (x + 0.5) / REFINED - 0.5
    whole = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = np.ceil(np.clip((y[whole] + 0.5) / REFINED - 0.5, 0, height)).astype(np.int64)
    places = column[whole].astype(np.int64) * height + row
    changes = np.zeros(height * width + 1, dtype=np.int64)
    np.add.at(changes, places, turn[whole])
    return np.asarray(changes[:-1].cumsum()).reshape(width, height).T


def _from_runs(counts: object, height: int, width: int) -> NDArray[np.bool_]:
    runs = _checked_runs(counts, height, width)
    values = np.arange(len(runs)) % 2 == 1
    return np.asarray(np.repeat(values, runs)).reshape(width, height).T


def _checked_runs(counts: object, height: int, width: int) -> NDArray[np.integer]:
    try:
        runs = np.asarray(counts)
    except ValueError:  # lists of several lengths
        runs = np.zeros(())
    if (
        runs.ndim != 1
        or runs.dtype.kind not in "iu"
        or runs.min(initial=0) < 0
        or runs.max(initial=0) > height * width  # before the sum, which could pass 64 bits and come round
        or runs.sum() != height * width
    ):
        raise ValueError(f"run lengths that do not add up to {height} x {width}")
    return runs


def _decompressed(text: str) -> list[int]:
    """Decode run lengths from COCO's text.

    A character holds six bits: five of a number, the lowest first, and one that says whether the number goes on. From
    the fourth number on, the text holds the difference from the number two places before.
    """
    runs: list[int] = []
    number = shift = 0
    for character in map(ord, text):
        bits = character - 48
        if not 0 <= bits < 64 or shift > MOST_BITS:
            raise ValueError("run lengths that are no text of COCO's")
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs
