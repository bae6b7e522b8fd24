"""PASCAL-Part: photographs whose largest object is an aeroplane, bird, car, cat or dog, with 3 parts each.

Sources: Chen et al. 2014, "Detect what you can"; Everingham et al. 2010 (VOC 2010); Sitawarin et al. 2023, appendix A.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ..errors import UserError
from ..parsing.limits import read_bytes
from .decoding import decode
from .mat_files import read_variables
from .plans import Extracted, Options, Plan, Sample

_LEGS = ("lfleg", "rfleg", "lbleg", "rbleg", "lfpa", "rfpa", "lbpa", "rbpa")
_HEAD = ("head", "nose", "leye", "reye", "lear", "rear", "neck")
# The paper's parts and what each gathers, in the order of painting: the first to be painted stays.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "aeroplane": {"tail": ("tail", "stern"), "wing": ("lwing", "rwing", "engine"), "body": ("body", "wheel")},
    "bird": {
        "head": ("head", "beak", "leye", "reye", "neck"),
        "legs": ("lleg", "rleg", "lfoot", "rfoot"),
        "body": ("torso", "lwing", "rwing", "tail"),
    },
    "car": {
        "wheel": ("wheel",),
        "window": ("window",),
        "body": (
            "bliplate", "fliplate", "frontside", "backside", "leftside", "rightside", "roofside", "door", "headlight",
            "leftmirror", "rightmirror",
        ),
    },
    "cat": {"head": _HEAD, "legs": _LEGS, "body": ("torso", "tail")},
    "dog": {"head": (*_HEAD, "muzzle"), "legs": _LEGS, "body": ("torso", "tail")},
}  # fmt: skip
PUBLISHED = 3_662


def _numbered() -> dict[str, dict[str, int]]:
    numbers = iter(range(1, 1 + sum(map(len, GROUPS.values()))))
    return {name: {part: next(numbers) for part in groups} for name, groups in GROUPS.items()}


NAMES = _numbered()

ABOUT = f"""\
PASCAL-Part: {PUBLISHED:,} photographs of aeroplanes, birds, cars, cats and dogs, with 3 parts of each.
Paper: Chen et al. 2014, https://arxiv.org/abs/1406.2031; preparation: Sitawarin et al. 2023, appendix A.

To be downloaded by hand:
  VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ (of it: JPEGImages)
  trainval.tar.gz from https://roozbehm.info/pascal-parts/pascal-parts.html (of it: Annotations_Part)
Licence: the photographs are Flickr's, under its terms of use, for research (see the page of VOC 2010); the part
annotations state none.

Source folder:
  DIR/JPEGImages/2008_000008.jpg  DIR/Annotations_Part/2008_000008.mat

What is made of it: whole photographs, labelled by their largest object, of these five classes alone. Fine parts
are gathered in three groups; the largest object is painted first, then the others in order, and what is painted
stays. Each class is split 80 / 10 / 10 %, with the shuffles of the published code."""


class Annotation(NamedTuple):
    """A unit of the preparation: an annotation and its photograph."""

    mat: Path
    image: Path


class Thing(NamedTuple):
    """An annotated object: its class, its mask and its parts' masks, all (H, W)."""

    label: str
    mask: np.ndarray
    parts: Sequence[tuple[str, np.ndarray]]


def plan(source: Path, options: Options) -> Plan:
    """Read the source folder, and plan what there is to prepare.

    Raises:
        UserError: if folders are missing, or a photograph of an annotation (which may belong to another class).
    """
    folder = source / "Annotations_Part"
    mats = sorted(folder.glob("*.mat"), key=lambda path: path.name)
    if not mats:
        raise UserError(f"{folder} has no *.mat. See: counterpart data describe pascal-part")
    units = {mat.stem: Annotation(mat, source / "JPEGImages" / f"{mat.stem}.jpg") for mat in mats}
    missing = [name for name, unit in units.items() if not unit.image.is_file()]
    if missing and not options.allow_missing:
        raise UserError(
            f"{len(missing):,} photographs are annotated and not there, the first is {units[missing[0]].image}. Put "
            "them there, or pass --allow-missing to leave them out."
        )
    return Plan(
        name="pascal-part",
        names=NAMES,
        units={name: unit for name, unit in units.items() if name not in missing},
        extract=extract,
        pools=[(name,) for name in sorted(GROUPS)],
        count=round,
        published=PUBLISHED,
        notes=[f"{len(missing):,} photographs are annotated and not there: left out"] if missing else [],
    )


def extract(unit: Annotation) -> Extracted:
    """Make the sample of a photograph, if its largest object is of the five classes.

    Raises:
        UserError: if a file is damaged or sizes differ.
    """
    things = read_mat(unit.mat)
    areas = [float(thing.mask.sum(dtype=np.float64)) for thing in things]
    if not areas or max(areas) == 0:
        return Extracted(left_out={"without objects": 1})
    largest = areas.index(max(areas))
    label = things[largest].label
    if label not in GROUPS:
        return Extracted(left_out={"another class": 1})
    mask, unknown = paint([things[largest], *things[:largest], *things[largest + 1 :]])
    height, width = decode(unit.image).shape[1:]
    if mask.shape != (height, width):
        raise UserError(
            f"{unit.mat} is {mask.shape[1]} x {mask.shape[0]} and {unit.image} is {width} x {height}."
        )
    photograph = f"JPEGImages/{unit.image.name}"
    left_out = {f"part {name!r} of no group": count for name, count in unknown.items()}
    return Extracted([Sample(unit.mat.stem, label, photograph, unit.image, mask)], left_out)


def paint(things: Sequence[Thing]) -> tuple[UInt8[np.ndarray, "h w"], Counter[str]]:
    """Paint objects in order as part ids, earlier ones over later ones.

    Returns:
        The mask, and the parts that belong to no group and so are background.
    """
    mask = np.zeros(things[0].mask.shape, dtype=np.uint8)
    unknown: Counter[str] = Counter()
    for thing in things:
        groups = GROUPS.get(thing.label, {})
        for group, members in groups.items():
            for name, covered in thing.parts:
                if _kind(name) in members:
                    mask[(covered > 0) & (mask == 0)] = NAMES[thing.label][group]
        known = {member for members in groups.values() for member in members}
        if groups:
            unknown.update(
                f"{thing.label} {_kind(name)}" for name, _ in thing.parts if _kind(name) not in known
            )
    return mask, unknown


def _kind(name: str) -> str:
    """The kind of a numbered part: "wheel" of "wheel_2"."""
    return re.sub(r"_\d+$", "", name)


def read_mat(path: Path) -> list[Thing]:
    """Read the objects of an annotation file.

    Raises:
        UserError: if the file is damaged or no PASCAL-Part annotation.
    """
    try:
        (annotation,) = read_variables(read_bytes(path, "UNPACKED"))["anno"]
        things = [_thing(entry) for entry in _structures(annotation["objects"])]
    except (OSError, ValueError, LookupError, TypeError) as error:
        # What a limit or the reader of the format says names what to do.
        reason = error if isinstance(error, ValueError) else type(error).__name__
        raise UserError(
            f"{path} is damaged, cut off or no PASCAL-Part annotation ({reason}). Replace it."
        ) from error
    shapes = {mask.shape for thing in things for mask in (thing.mask, *(part for _, part in thing.parts))}
    if len(shapes) > 1 or any(len(shape) != 2 for shape in shapes):
        raise UserError(f"{path} has masks of different sizes: {', '.join(map(str, sorted(shapes)))}.")
    return things


def _thing(entry: Mapping[str, Any]) -> Thing:
    parts = [(_text(part["part_name"]), _numbers(part["mask"])) for part in _structures(entry["parts"])]
    return Thing(_text(entry["class"]), _numbers(entry["mask"]), parts)


def _structures(value: object) -> list[dict[str, Any]]:
    """A list of structures, which is empty where MATLAB wrote an empty array of numbers."""
    if isinstance(value, np.ndarray) and value.size == 0:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise TypeError("structures were expected")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _numbers(value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise TypeError("numbers were expected")
    return value
