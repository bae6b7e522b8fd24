"""The part data sets that can be prepared from their original files, by name."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError, nearest
from . import cityscapes_parts, coco_parts, labelme, mask_folders, part_imagenet, pascal_part
from .plans import Options, Planner, Prepared
from .preparation import prepare

OWN_OPTIONS = ("published", "classes", "objects", "largest", "names")  # that some preparations have
TOOLS_SPLITS = ("source", "photograph", "sample")


class Preparation(NamedTuple):
    """What can be prepared: how to read it, what to say about it, how it can be split, and which options it has."""

    plan: Planner
    about: str
    splits: Sequence[str] = ("sample", "photograph")
    options: Sequence[str] = ("published",)


PREPARATIONS = {
    "part-imagenet": Preparation(part_imagenet.plan, part_imagenet.ABOUT),
    "cityscapes": Preparation(
        cityscapes_parts.plan, cityscapes_parts.ABOUT, ("sample", "photograph", "city")
    ),
    "pascal-part": Preparation(pascal_part.plan, pascal_part.ABOUT),
    "coco": Preparation(coco_parts.plan, coco_parts.ABOUT, TOOLS_SPLITS, ("classes", "objects", "largest")),
    "labelme": Preparation(labelme.plan, labelme.ABOUT, TOOLS_SPLITS, ("classes", "objects", "largest")),
    "masks": Preparation(mask_folders.plan, mask_folders.ABOUT, TOOLS_SPLITS, ("classes", "names")),
}


def find(name: str) -> Preparation:
    """The preparation of a data set.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in PREPARATIONS:
        raise UserError(f"Unknown part data set {name!r}. {nearest(name, PREPARATIONS)}")
    return PREPARATIONS[name]


def prepare_named(
    name: str, source: Path, target: Path, options: Options, workers: int | None = None, wait: float = 0.0
) -> Prepared:
    """Prepare a data set from its original files: see ``preparation.prepare``.

    Raises:
        UserError: as there; or if the source is no folder, or the split is not one that the data set has.
    """
    chosen = find(name)
    if options.split is not None and options.split not in chosen.splits:
        raise UserError(f"--split {options.split} does not fit: {name} has {', '.join(chosen.splits)}.")
    for field in fields(Options):
        alone = field.name in OWN_OPTIONS and field.name not in chosen.options
        if alone and getattr(options, field.name) != field.default:
            raise UserError(f"--{field.name} has no effect on {name}: leave it out.")
    _check_classes(options.classes)
    if not source.is_dir():
        instead = f": name the folder that it lies in, {source.parent}" if source.is_file() else ""
        raise UserError(
            f"--source {source} is no folder{instead}. What belongs there: counterpart data describe {name}"
        )
    if source.resolve() == target.resolve():
        raise UserError(f"--target {target} is the source: name another folder.")
    if "classes" in chosen.options and source.resolve() in target.resolve().parents:
        raise UserError(f"--target {target} lies within the source: name a folder beside it.")
    return prepare(chosen.plan(source, options), target, options, workers, wait)


def _check_classes(classes: str | None) -> None:
    """Refuse what is neither a word for where classes come from nor a file."""
    if classes not in (None, "folder", "object") and not Path(classes).expanduser().is_file():
        raise UserError(
            f"--classes {classes}: expected folder, object, or a CSV with lines 'image,class'; there is no such file. "
            f"{nearest(classes, ('folder', 'object'))}"
        )
