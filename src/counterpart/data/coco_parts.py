"""Part labels in COCO's JSON, as CVAT, Label Studio, Roboflow, COCO Annotator and PACO write it.

Sources: the data format of the COCO data set; PACO (Ramanathan et al. 2023), whose parts name their object in
``obj_ann_id``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError
from . import coco
from .marked import plan_pictures
from .marks import Mark, Picture
from .plans import Options, Plan
from .sources import class_in, json_files, list_images, refuse_empty_classes, split_in, split_of_file

# The fields by which tools link a part to its object: by the object's id, by the ids of its parts, by a common number.
PARENTS = (
    "parent_id", "parent", "parent_ann_id", "parent_annotation_id", "obj_ann_id", "object_ann_id",
    "object_annotation_id", "object_id", "part_of", "belongs_to",
)  # fmt: skip
MEMBERS = ("part_ids", "part_ann_ids", "parts", "children")
GROUPS = ("group_id", "group", "instance_id")

ABOUT = """\
COCO: your own part labels in COCO's JSON, as CVAT, Label Studio, Roboflow and COCO Annotator export it.

Source folder: the JSON files and the images, wherever they lie in it, such as
  DIR/annotations/instances_default.json  DIR/images/7.jpg       (CVAT)
  DIR/result.json  DIR/images/7.jpg                              (Label Studio)
  DIR/train/_annotations.coco.json  DIR/train/7.jpg              (Roboflow)

What is made of it: every category is a part, and every photograph a sample, unless some categories are whole objects:
those that --objects names, that other annotations name as their object (parent_id, obj_ann_id, object_id, ...
also under "attributes"), or whose name is the supercategory of other categories. Then every object with parts becomes a
sample, cropped as a square with a random margin of 0 to 10 % on every side, and has the parts that are linked to it,
else those of its group_id, else those that lie in it. --largest takes one object of each photograph.
The class is the object's category, or the supercategory of its parts, or the folder of the image, such as
DIR/images/car/7.jpg; --classes folder, --classes object or --classes FILE.csv (lines "image,class") choose.
Polygons and run lengths; boxes without an outline are filled. Where parts overlap, the later annotation is painted over
the earlier one. A part called "background" is none."""


def plan(source: Path, options: Options) -> Plan:
    """Read the source folder, and plan what there is to prepare.

    Raises:
        UserError: a file is damaged or no COCO annotation, images are missing, or classes cannot be told.
    """
    images = list_images(source)
    pictures: dict[str, Picture] = {}
    refused: list[str] = []
    for file in json_files(source):
        loaded, categories, annotations = coco.read(file, refused)
        by_image: dict[int, list[Mapping[str, Any]]] = {}
        for row in annotations:
            by_image.setdefault(row["image_id"], []).append(row)
        of_file = split_of_file(file, source)
        for number in sorted(loaded):
            row = loaded[number]
            path = images.find(row["file_name"], file)
            place = PurePosixPath(row["file_name"] if path is None else path.relative_to(source).as_posix())
            if path is not None and place.as_posix() in pictures:
                raise UserError(f"{path} is in {pictures[place.as_posix()].said} and again in {file}.")
            marks = list(_marks(by_image.get(number, []), categories, file))
            size = (row["height"], row["width"])
            split = split_in(place.parent.parts) or of_file
            key = place.as_posix() if path is not None else f"{file}: {place}"
            pictures[key] = Picture(place, path, size, marks, str(file), split, class_in(place))
    plan_of_pictures = plan_pictures(
        "coco", [pictures[key] for key in sorted(pictures)], refused, images, options
    )
    if options.classes in (None, "folder"):
        refuse_empty_classes(source, plan_of_pictures.names)
    return plan_of_pictures


def _marks(
    rows: list[Mapping[str, Any]], categories: Mapping[int, Mapping[str, Any]], file: Path
) -> Iterator[Mark]:
    for row in rows:
        category = categories[row["category_id"]]
        broader = category.get("supercategory")
        yield Mark(
            said=f"{file}: annotation {row['id']} ({category['name']})",
            category=category["name"],
            outline=_outline(row),
            broader=broader if isinstance(broader, str) else "",
            number=str(row["id"]),
            parent=_linked(row, PARENTS),
            members=_members(row),
            group=_linked(row, GROUPS),
        )


def _outline(row: Mapping[str, Any]) -> object:
    """An annotation's segmentation, or its box where it has none."""
    outline, box = row.get("segmentation"), row.get("bbox")
    empty = outline is None or (isinstance(outline, list) and not any(outline))
    return [box] if empty and isinstance(box, list) and len(box) == 4 else outline


def _fields(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Where an annotation's own fields stand: in itself, and where tools put those that a user added."""
    inner = row.get("attributes")
    return [row, inner] if isinstance(inner, Mapping) else [row]


def _linked(row: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """The number that one of some fields holds, as text; None where it holds none."""
    for fields in _fields(row):
        for key in keys:
            value = fields.get(key)
            if (
                isinstance(value, int | str)
                and not isinstance(value, bool)
                and str(value).strip() not in ("", "-1")
            ):
                return str(value).strip()
    return None


def _members(row: Mapping[str, Any]) -> tuple[str, ...]:
    for fields in _fields(row):
        for key in MEMBERS:
            value = fields.get(key)
            if isinstance(value, list) and value and all(isinstance(number, int | str) for number in value):
                return tuple(str(number) for number in value)
    return ()
