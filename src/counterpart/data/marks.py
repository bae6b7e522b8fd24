"""Marks on photographs: which are objects and which are parts, and whose part each is.

Files of annotation tools are read elsewhere (``coco_parts``, ``labelme``) as ``Picture``s of ``Mark``s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..errors import UserError, nearest
from .crops import Box
from .outlines import area, box_of, points_within, share_within, union
from .plans import Options

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


class Arranged(NamedTuple):
    """A picture's marks, sorted: its subjects (class, and box if cut out), and its parts with the subject of each.

    What is marked as background belongs to no subject: -1.
    """

    picture: Picture
    subjects: list[tuple[str, Box | None]]
    parts: list[tuple[Mark, int]]


def object_categories(pictures: Sequence[Picture], options: Options) -> set[str]:
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


def arrange(picture: Picture, label: str | None, objects: set[str], refused: list[str]) -> Arranged:
    """Sort a picture's marks into subjects and their parts.

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
    subjects: list[tuple[str, Box | None]] = [
        (marks[k].category if label is None else label, union(of_object)) for k, of_object in around.items()
    ]
    subjects += [(name, union(of_name) if len(by_name) > 1 else None) for name, of_name in by_name.items()]
    keys: list[int | str] = [*around, *by_name]
    place = {key: n for n, key in enumerate(keys)}
    return Arranged(picture, subjects, [(mark, place.get(owner, -1)) for mark, owner in owners])


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
