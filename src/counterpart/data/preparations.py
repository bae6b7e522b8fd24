"""The part data sets that can be prepared from their original files, by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError, nearest
from . import cityscapes_parts, part_imagenet, pascal_part
from .plans import Options, Planner, Prepared
from .preparation import prepare


class Preparation(NamedTuple):
    """A data set that can be prepared: how to read it, what to say about it, and what its splits may keep together."""

    plan: Planner
    about: str
    splits: Sequence[str] = ("sample", "photograph")


PREPARATIONS = {
    "part-imagenet": Preparation(part_imagenet.plan, part_imagenet.ABOUT),
    "cityscapes": Preparation(
        cityscapes_parts.plan, cityscapes_parts.ABOUT, ("sample", "photograph", "city")
    ),
    "pascal-part": Preparation(pascal_part.plan, pascal_part.ABOUT),
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
    name: str, source: Path, target: Path, options: Options, workers: int | None = None
) -> Prepared:
    """Prepare a data set from its original files: see ``preparation.prepare``.

    Raises:
        UserError: as there; or if the source is no folder, or the split is not one that the data set has.
    """
    chosen = find(name)
    if options.split not in chosen.splits:
        raise UserError(f"--split {options.split} does not fit: {name} has {', '.join(chosen.splits)}.")
    if not source.is_dir():
        raise UserError(
            f"--source {source} is no folder. What belongs there: counterpart data describe {name}"
        )
    if source.resolve() == target.resolve():
        raise UserError(f"--target {target} is the source: name another folder.")
    return prepare(chosen.plan(source, options), target, options, workers)
