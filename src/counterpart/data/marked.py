"""Photographs with outlines of parts, and perhaps of the objects that they belong to: from annotations to samples.

Files of annotation tools are read elsewhere (``coco_parts``, ``labelme``) as ``Picture``s of ``Mark``s. Here it is
decided which marks are objects and which are parts, whose part each is, what class everything has, and how parts are
numbered.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from ..errors import UserError, nearest
from ..seeding import derive
from .crops import Box, cut, square_region
from .outlines import area, box_of, draw, points_within, share_within, union
from .parts import MOST
from .plans import Extracted, Options, Plan, Sample
from .sources import (
    check_class_name,
    check_splits,
    classes_by_table,
    said_of_missing,
    said_of_splits,
    sample_name,
    unused,
)  # fmt: skip
from .upright import read_upright

# Words that tools and people write where a category belongs to nothing, and for what is no part.
VAGUE = {"", "none", "null", "default", "undefined", "object", "objects", "part", "parts", "thing", "stuff"}
BACKGROUND = {"background", "_background_", "__background__", "bg"}
WITHIN = 0.5  # the least share of a part's box that lies in the box of its object


@dataclass(frozen=True)
class Mark:
    """An outline with a name.

    Attributes:
        said: what messages call it, such as "a.json: annotation 7".
        category: its name.
        outline: a ``Circle``, or a segmentation as COCO has it.
        broader: the category that its category belongs to, if the file says.
        number: what other marks of its picture call it by.
        parent: the number of the mark that it is a part of.
        members: the numbers of the marks that are parts of it.
        group: marks of an object and its parts have the same.
    """

    said: str
    category: str
    outline: Any
    broader: str = ""
    number: str | None = None
    parent: str | None = None
    members: tuple[str, ...] = ()
    group: str | None = None


@dataclass(frozen=True)
class Picture:
    """A photograph and its marks, in their order: later ones are painted over earlier ones.

    Attributes:
        place: the path of the image in the source, or of the annotation that holds it.
        image: the file; None where it is missing.
        size: height and width, as the annotation has them.
        marks: what was drawn on it.
        said: the annotation file.
        split: train, val or test, if the source says.
        folder: the class whose folder it lies in, if it lies in one.
    """

    place: PurePosixPath
    image: Path | None
    size: tuple[int, int]
    marks: Sequence[Mark]
    said: str
    split: str | None = None
    folder: str | None = None


class Painted(NamedTuple):
    """A part to be painted: its id, and the object of the unit that it belongs to."""

    part: int
    thing: int
    mark: Mark


class Thing(NamedTuple):
    """An object that becomes a sample: what is cut out, or the whole photograph."""

    label: str
    name: str
    box: Box | None


class Unit(NamedTuple):
    """A photograph to be worked on."""

    picture: Picture
    paints: list[Painted]
    things: list[Thing]
    seed: int


class _Sorted(NamedTuple):
    """A picture's marks, sorted: its things (class, and box if it is cut out), and its parts with the thing of each.

    What is marked as background belongs to no thing: -1.
    """

    picture: Picture
    things: list[tuple[str, Box | None]]
    parts: list[tuple[Mark, int]]


def plan_pictures(name: str, pictures: Sequence[Picture], refused: Sequence[str], options: Options) -> Plan:
    """Plan what there is to prepare.

    Args:
        name: of the preparation.
        pictures: what the source holds, in an order that does not depend on the file system.
        refused: annotations that have been refused, a line each.
        options: how the data set is prepared.

    Raises:
        UserError: images are missing, classes cannot be told, or too few photographs show a class.
    """
    missing = [picture for picture in pictures if picture.image is None]
    if missing and not options.allow_missing:
        raise UserError(
            f"{len(missing):,} images are annotated and not there, the first is {missing[0].place} of "
            f"{missing[0].said}. Put them there, or pass --allow-missing to leave them out."
        )
    refusals = list(refused)
    refusals += [
        f"{mark.said} of an image that is not there" for picture in missing for mark in picture.marks
    ]
    pictures = [_sound(picture, refusals) for picture in pictures if picture.image is not None]
    left_out: Counter[str] = Counter()
    if bare := sum(not picture.marks for picture in pictures):
        left_out["without annotations"] = bare
    pictures = [picture for picture in pictures if picture.marks]
    objects = _object_categories(pictures, options)
    labels, told_by = _labels(pictures, objects, options)
    arranged = [
        _arranged(picture, labels[picture.place.as_posix()], objects, refusals)
        for picture in pictures
        if labels[picture.place.as_posix()] is not None or told_by in ("object", "broader")
    ]
    if leaves := len(pictures) - len(arranged):
        left_out["with an empty class"] = leaves
    names = _numbered(arranged)
    units = _units(arranged, names, options, left_out)
    if not units:
        first = f" The first of {len(refusals):,} refused annotations: {refusals[0]}." if refusals else ""
        raise UserError(f"{name}: nothing in the source can become a sample.{first}")
    split = check_splits(
        [(thing.label, unit.picture.split) for unit in units.values() for thing in unit.things], options
    )
    return Plan(
        name=name,
        names=names,
        units=units,
        extract=extract,
        pools=[],
        count=int,
        published=None,
        notes=[
            *said_of_missing(len(missing)),
            _said_of_classes(told_by, objects, names, options),
            said_of_splits(split, options),
        ],
        split=split,
        identity=identity(told_by, names, [thing for unit in units.values() for thing in unit.things]),
        left_out=left_out,
        refused=refusals,
    )


def identity(told_by: str, names: object, samples: Sequence[Sequence[object]]) -> dict[str, str]:
    """What decides a preparation beside its options: where classes come from, and hashes of parts and of samples."""
    return {
        "classes": told_by,
        "parts": hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()[:12],
        "samples": hashlib.sha256(json.dumps(samples).encode()).hexdigest()[:12],
    }


def extract(unit: Unit) -> Extracted:
    """Make the samples of a photograph.

    Raises:
        UserError: if the image is damaged or has another size than its annotation.
    """
    picture = unit.picture
    assert picture.image is not None
    image = read_upright(picture.image, picture.size, picture.said)
    height, width = picture.size
    large = max((paint.part for paint in unit.paints), default=0) > 255
    mask = np.zeros((height, width), dtype=np.uint16 if large else np.uint8)
    refused: list[str] = []
    seen: set[int] = set()
    for paint in unit.paints:
        covered = _drawn(paint.mark, height, width, refused)
        if covered is not None:
            mask[covered] = paint.part
            seen.add(paint.thing)
    samples, left_out = [], Counter[str]()
    for number, thing in enumerate(unit.things):
        if number not in seen:
            left_out["without parts"] += 1
            continue
        place = picture.place.as_posix()
        if thing.box is None:
            samples.append(
                Sample(thing.name, thing.label, place, image.as_stored, mask, source=picture.split)
            )
            continue
        draws = np.random.default_rng(derive(unit.seed, f"{thing.label}/{thing.name}")).random(2)
        region = square_region(thing.box, draws)
        crop = cut(image.pixels, region)
        samples.append(Sample(thing.name, thing.label, place, crop, cut(mask, region), source=picture.split))
    return Extracted(samples, left_out, refused)


def _drawn(mark: Mark, height: int, width: int, refused: list[str]) -> Bool[np.ndarray, "h w"] | None:
    try:
        return draw(mark.outline, height, width)
    except ValueError as error:
        refused.append(f"{mark.said} has {error}")
        return None


def _sound(picture: Picture, refused: list[str]) -> Picture:
    """The picture with those of its marks whose outlines can be placed."""
    sound = []
    for mark in picture.marks:
        try:
            box_of(mark.outline, *picture.size)
        except ValueError as error:
            refused.append(f"{mark.said} has {error}")
        else:
            sound.append(mark)
    return replace(picture, marks=sound)


def _object_categories(pictures: Sequence[Picture], options: Options) -> set[str]:
    """The categories that are whole objects, by the options, or by links between marks or between categories."""
    names = {mark.category for picture in pictures for mark in picture.marks}
    if options.objects:
        for name in options.objects:
            if name not in names:
                raise UserError(
                    f"--objects: no annotation is of the category {name!r}. {nearest(name, names)}"
                )
        return set(options.objects)
    objects: set[str] = set()
    for picture in pictures:
        parents = _parents(picture.marks)
        objects.update(picture.marks[k].category for k in parents.values() if k not in parents)
    broader = {mark.category: mark.broader for picture in pictures for mark in picture.marks}
    ordered = set(broader.values()) & names
    objects.update(name for name in ordered if broader[name] not in names or broader[name] == name)
    objects.update(name for name, over in broader.items() if over.casefold() in ("object", "objects"))
    return objects


def _parents(marks: Sequence[Mark]) -> dict[int, int]:
    """Which mark each is a part of, by position, as far as links say."""
    position = {mark.number: k for k, mark in enumerate(marks) if mark.number is not None}
    parents = {}
    for k, mark in enumerate(marks):
        if mark.parent is not None and position.get(mark.parent, k) != k:
            parents[k] = position[mark.parent]
        for member in mark.members:
            if position.get(member, k) != k:
                parents.setdefault(position[member], k)
    return parents


def _labels(
    pictures: Sequence[Picture], objects: set[str], options: Options
) -> tuple[dict[str, str | None], str]:
    """The class of each picture, and where classes come from: object, broader, folder or table."""
    places = [picture.place.as_posix() for picture in pictures]
    ordered = all(
        mark.broader.casefold() not in VAGUE
        for picture in pictures
        for mark in picture.marks
        if mark.category.casefold() not in BACKGROUND
    )
    if options.classes in (None, "object") and (objects or (ordered and pictures)):
        return dict.fromkeys(places), "object" if objects else "broader"
    if options.classes == "object":
        categories = sorted({mark.category for picture in pictures for mark in picture.marks})
        raise UserError(
            "--classes object: which categories are objects? Name them by --objects; there are "
            f"{', '.join(categories)}."
        )
    if options.classes not in (None, "folder"):
        assert options.classes is not None
        return classes_by_table(places, Path(options.classes), allow_missing=options.allow_missing), "table"
    by_folder = {picture.place.as_posix(): picture.folder for picture in pictures}
    if lost := [place for place, label in by_folder.items() if label is None]:
        raise UserError(
            f"Which class does {lost[0]} show? {len(lost):,} of {len(places):,} images lie in no folder of a class. "
            "Sort them into folders, or pass --classes FILE.csv with lines 'image,class', or name the categories that "
            "are whole objects: --objects car,bus."
        )
    return by_folder, "folder"


def _arranged(picture: Picture, label: str | None, objects: set[str], refused: list[str]) -> _Sorted:
    """Sort a picture's marks into things and their parts.

    Args:
        picture: whose outlines can be placed.
        label: its class; None where each object has that of its category.
        objects: the categories that are objects.
        refused: takes a line for each part of nothing.
    """
    marks = picture.marks
    boxes = [box_of(mark.outline, *picture.size) for mark in marks]
    whole = [k for k, mark in enumerate(marks) if mark.category in objects]
    parents, numbers = _parents(marks), {mark.number for mark in marks}
    around = {k: [boxes[k]] for k in whole}  # of each object: its box, and those of its parts
    by_name: dict[str, list[Box]] = {}  # the same where objects are not marked
    owners: list[tuple[Mark, int | str]] = []
    for k, mark in enumerate(marks):
        if k in around:
            continue
        if mark.category.casefold() in BACKGROUND:
            owners.append((mark, -1))
        elif mark.parent is not None and mark.parent not in numbers:
            refused.append(f"{mark.said} is a part of {mark.parent}, which is no annotation of its image")
        elif not objects:
            name = mark.broader if label is None else label
            by_name.setdefault(name, []).append(boxes[k])
            owners.append((mark, name))
        elif (owner := _owner(k, marks, boxes, whole, parents)) is None:
            refused.append(f"{mark.said} lies in none of the objects of its image")
        else:
            around[owner].append(boxes[k])
            owners.append((mark, owner))
    things: list[tuple[str, Box | None]] = [
        (marks[k].category if label is None else label, union(of_object)) for k, of_object in around.items()
    ]
    things += [(name, union(of_name) if len(by_name) > 1 else None) for name, of_name in by_name.items()]
    keys: list[int | str] = [*around, *by_name]
    place = {key: n for n, key in enumerate(keys)}
    return _Sorted(picture, things, [(mark, place.get(owner, -1)) for mark, owner in owners])


def _owner(
    k: int, marks: Sequence[Mark], boxes: Sequence[Box], whole: Sequence[int], parents: Mapping[int, int]
) -> int | None:
    """The object that a mark is a part of: by links, else by its group, else the one that it lies in."""
    place, passed = k, {k}
    while place in parents and parents[place] not in passed:
        place = parents[place]
        passed.add(place)
        if place in whole:
            return place
    mark = marks[k]
    candidates = [n for n in whole if marks[n].group == mark.group] if mark.group is not None else []
    if len(candidates) == 1:
        return candidates[0]
    candidates = candidates or [n for n in whole if marks[n].category == mark.broader] or list(whole)
    around = [n for n in candidates if share_within(boxes[k], boxes[n]) >= WITHIN]
    return max(
        around,
        key=lambda n: (points_within(mark.outline, boxes[k], marks[n].outline), -area(boxes[n]), -n),
        default=None,
    )


def _numbered(arranged: Sequence[_Sorted]) -> dict[str, dict[str, int]]:
    """Number the parts of all classes from 1 on, in the order of their names."""
    seen: dict[str, set[str]] = {}
    for _, things, parts in arranged:
        for mark, thing in parts:
            if thing >= 0:
                seen.setdefault(things[thing][0], set()).add(mark.category)
    return number_parts(seen)


def number_parts(seen: Mapping[str, set[str]]) -> dict[str, dict[str, int]]:
    """Number the parts of all classes from 1 on, classes and parts in the order of their names.

    Raises:
        UserError: a class cannot be the name of a folder, or there are too many parts.
    """
    for label in seen:
        check_class_name(label)
    count = sum(len(parts) for parts in seen.values())
    if count > MOST:
        raise UserError(f"The source has {count:,} parts in all classes, and a mask can have {MOST:,}.")
    numbers = iter(range(1, count + 1))
    return {label: {part: next(numbers) for part in sorted(seen[label])} for label in sorted(seen)}


def _units(
    arranged: Sequence[_Sorted],
    names: Mapping[str, Mapping[str, int]],
    options: Options,
    left_out: Counter[str],
) -> dict[str, Unit]:
    """Make the units: for each picture what is painted, and the samples that it gives."""
    used: set[str] = set()
    units = {}
    for picture, things, parts in arranged:
        with_parts = sorted({thing for _, thing in parts if thing >= 0})
        if bare := len(things) - len(with_parts):
            left_out["without parts"] += bare
        chosen = with_parts
        if options.largest and len(chosen) > 1:
            left_out["smaller than another"] += len(chosen) - 1
            chosen = [max(chosen, key=lambda k: (_size(things[k][1]), -k))]
        if not chosen:
            continue
        paints = [
            Painted(names[things[thing][0]][mark.category] if thing >= 0 else 0,
                    chosen.index(thing) if thing in chosen else -1, mark)
            for mark, thing in parts
        ]  # fmt: skip
        samples = []
        for k in chosen:
            label, box = things[k]
            name = sample_name(picture.place, label)
            name = unused(f"{name}_{k + 1}" if len(with_parts) > 1 else name, label, used)
            samples.append(Thing(label, name, box))
        units[picture.place.as_posix()] = Unit(replace(picture, marks=()), paints, samples, options.seed)
    return units


def _size(box: Box | None) -> int:
    return 0 if box is None else area(box)


def _said_of_classes(told_by: str, objects: set[str], names: Mapping[str, object], options: Options) -> str:
    """Where the classes come from, in a sentence."""
    crops = f"Cropped around each {', '.join(sorted(objects))}. " if objects else ""
    source = {
        "object": "those of the objects",
        "broader": "the categories that those of the parts belong to",
        "folder": "the folders of the images",
        "table": f"those of {options.classes}",
    }[told_by]
    return f"{crops}Classes are {source}: {', '.join(names)}"
