"""Part labels in LabelMe's JSON, a file for each image. Source: the format that LabelMe writes (versions 4 and 5)."""

import re
from collections.abc import Mapping, Sequence
from math import hypot, isfinite
from pathlib import Path, PurePosixPath

from .. import progress
from ..errors import UserError, unreadable
from ..parsing import read_json
from .marked import plan_pictures
from .marks import Mark, Picture
from .outlines import Circle
from .plans import Options, Plan
from .sources import SourceImages, class_in, json_files, list_images, refuse_empty_classes, split_in
from .upright import upright_size

KINDS = ("polygon", "rectangle", "circle")

ABOUT = """\
LabelMe: your own part labels, a JSON for each image, as LabelMe, AnyLabeling and X-AnyLabeling write it.

Source folder: the JSON files and the images, wherever they lie in it, such as
  DIR/car/7.json  DIR/car/7.jpg        (the image may also be within the JSON, as imageData)

What is made of it: every label is a part, and every photograph a sample, unless --objects car,bus names labels that are
whole objects. Then every object with parts becomes a sample, cropped as a square with a random margin of 0 to 10 % on
every side, and has the parts of the same group_id, or else those that lie in it. --largest takes one object of each
photograph.
The class is the object's label, or the folder of the image (DIR/car/7.jpg); --classes folder, --classes object or
--classes FILE.csv (lines "image,class") choose.
Polygons, rectangles and circles. Where parts overlap, the later shape is painted over the earlier one. A part called
"background" is none."""


def plan(source: Path, options: Options) -> Plan:
    """Read the source folder, and plan what there is to prepare.

    Raises:
        UserError: a file is damaged or no LabelMe annotation, images are missing, or classes cannot be told.
    """
    images = list_images(source)
    files = json_files(source)
    pictures: dict[str, Picture] = {}
    refused: list[str] = []
    with progress.track("reading", len(files), unit="files") as bar:
        for file in files:
            picture = _read(file, images, refused)
            key = picture.place.as_posix() if picture.image is not None else str(file)
            if key in pictures:
                raise UserError(f"{picture.image} is in {pictures[key].said} and again in {file}.")
            pictures[key] = picture
            bar.advance(1)
    plan_of_pictures = plan_pictures(
        "labelme", [pictures[key] for key in sorted(pictures)], refused, images, options
    )
    if options.classes in (None, "folder"):
        refuse_empty_classes(source, plan_of_pictures.names)
    return plan_of_pictures


def _read(file: Path, images: SourceImages, refused: list[str]) -> Picture:
    """Read a file. Shapes that are wrong are refused; ``refused`` takes a line for each.

    Raises:
        UserError: if the file is damaged or no LabelMe annotation.
    """
    try:
        loaded = read_json(file, limit="ANNOTATIONS")
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None
    shapes = loaded.get("shapes") if isinstance(loaded, dict) else None
    name = loaded.get("imagePath") if isinstance(loaded, dict) else None
    if not isinstance(shapes, list) or not isinstance(name, str | None):
        is_coco = isinstance(loaded, dict) and "annotations" in loaded and "images" in loaded
        hint = " It looks like COCO's: counterpart data prepare coco." if is_coco else ""
        raise UserError(
            f"{file} is no LabelMe annotation: it has no list 'shapes' and text 'imagePath'.{hint}"
        )
    path = images.find(name, file, near=True) if name else None
    if path is None and isinstance(loaded.get("imageData"), str):
        path = file
    here = PurePosixPath(file.relative_to(images.root).as_posix())
    if path is None or path == file:
        place = here.parent / re.split(r"[\\/]", name or f"{here.stem}.png")[-1]
    else:
        place = PurePosixPath(path.relative_to(images.root).as_posix())
    marks = []
    for number, shape in enumerate(shapes, start=1):
        try:
            marks.append(_mark(shape, f"{file}: shape {number}"))
        except ValueError as error:
            refused.append(f"{file}: shape {number} has {error}")
    height, width = (loaded.get(key) for key in ("imageHeight", "imageWidth"))
    if type(height) is int and type(width) is int:
        size = (height, width)
    else:
        size = (0, 0) if path is None else upright_size(path)
    split = split_in(place.parent.parts) or split_in(here.parent.parts)
    return Picture(place, path, size, marks, str(file), split, class_in(place) or class_in(here))


def _mark(shape: object, said: str) -> Mark:
    if (
        not isinstance(shape, Mapping)
        or not isinstance(shape.get("label"), str)
        or not shape["label"].strip()
    ):
        raise ValueError("no label")
    label, group = shape["label"].strip(), shape.get("group_id")
    outline = _outline(shape.get("shape_type") or "polygon", _points(shape.get("points")))
    return Mark(f"{said} ({label})", label, outline, group=None if group is None else str(group))


def _outline(kind: object, points: Sequence[tuple[float, float]]) -> object:
    """The outline of a shape: a ``Circle``, or a polygon as COCO has it."""
    if kind == "circle" and len(points) == 2:
        (x, y), (edge_x, edge_y) = points
        return Circle(x, y, hypot(edge_x - x, edge_y - y))
    if kind == "rectangle" and len(points) == 2:
        (x, y), (end_x, end_y) = points
        points = [(x, y), (end_x, y), (end_x, end_y), (x, end_y)]
    elif kind == "circle":
        raise ValueError(f"a circle of {len(points)} points, where its centre and one on its edge belong")
    elif kind not in KINDS:
        raise ValueError(f"the shape_type {kind!r:.40} ({', '.join(KINDS)} are read)")
    if len(points) < 3:
        raise ValueError(f"{len(points)} points, too few for a {kind}")
    return [[number for point in points for number in point]]


def _points(points: object) -> list[tuple[float, float]]:
    if not isinstance(points, list):
        raise ValueError("no points")
    read = []
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(type(n) in (int, float) for n in point):
            raise ValueError("points that are no pairs of numbers")
        try:
            x, y = map(float, point)
        except OverflowError:
            x = y = float("inf")
        if not (isfinite(x) and isfinite(y)):
            raise ValueError("points that are not finite")
        read.append((x, y))
    return read
