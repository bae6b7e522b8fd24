"""Photographs with outlines of parts, and perhaps of the objects that they belong to: from annotations to samples.

Here it is decided what class everything has, how parts are numbered, what is cut out and what is left out.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from ..errors import UserError
from ..seeding import derive
from .crops import Box, cut, square_region
from .decoding import SUFFIXES
from .marks import BACKGROUND, Arranged, Mark, Picture, arrange, object_categories
from .outlines import area, box_of, draw
from .parts import MOST
from .plans import Extracted, Options, Plan, Sample
from .sources import (
    SourceImages,
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


class Painted(NamedTuple):
    """A part to be painted: its id, and the object of the unit that it belongs to."""

    part: int
    subject: int
    mark: Mark


class Subject(NamedTuple):
    """An object that becomes a sample: what is cut out, or the whole photograph."""

    label: str
    name: str
    box: Box | None


class MarkedPhotograph(NamedTuple):
    """A photograph to be worked on."""

    picture: Picture
    paints: list[Painted]
    subjects: list[Subject]
    seed: int


def plan_pictures(
    name: str, pictures: Sequence[Picture], refused: Sequence[str], there: SourceImages, options: Options
) -> Plan:
    """Plan what there is to prepare.

    Args:
        name: of the preparation.
        pictures: what the source holds, in an order that does not depend on the file system.
        refused: annotations that have been refused, a line each.
        there: all images of the source.
        options: how the data set is prepared.

    Raises:
        UserError: images are missing, classes cannot be told, or too few photographs show a class.
    """
    missing = [picture for picture in pictures if picture.image is None]
    if missing and not options.allow_missing:
        raise UserError(
            f"{len(missing):,} images are annotated and not there, the first is {missing[0].place} of "
            f"{missing[0].said}. Put them there ({', '.join(SUFFIXES)}), or pass --allow-missing to leave them out."
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
    objects = object_categories(pictures, options)
    labels, told_by = _labels(pictures, objects, there, options)
    arranged = [
        arrange(picture, labels[picture.place.as_posix()], objects, refusals)
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
        [(subject.label, unit.picture.split) for unit in units.values() for subject in unit.subjects], options
    )
    return Plan(
        name=name,
        names=names,
        units=units,
        extract=extract,
        notes=[
            *said_of_missing(len(missing)),
            _said_of_classes(told_by, objects, names, options),
            said_of_splits(split, options),
        ],
        split=split,
        identity=identity(told_by, names, [subject for unit in units.values() for subject in unit.subjects]),
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


def extract(unit: MarkedPhotograph) -> Extracted:
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
    subjects_with_parts: set[int] = set()
    for paint in unit.paints:
        covered = _drawn(paint.mark, height, width, refused)
        if covered is not None:
            mask[covered] = paint.part
            subjects_with_parts.add(paint.subject)
    samples, left_out = [], Counter[str]()
    for number, subject in enumerate(unit.subjects):
        if number not in subjects_with_parts:
            left_out["without parts"] += 1
            continue
        place = picture.place.as_posix()
        if subject.box is None:
            samples.append(
                Sample(subject.name, subject.label, place, image.as_stored, mask, source=picture.split)
            )
            continue
        draws = np.random.default_rng(derive(unit.seed, f"{subject.label}/{subject.name}")).random(2)
        region = square_region(subject.box, draws)
        crop = cut(image.pixels, region)
        samples.append(
            Sample(subject.name, subject.label, place, crop, cut(mask, region), source=picture.split)
        )
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


def _labels(
    pictures: Sequence[Picture], objects: set[str], there: SourceImages, options: Options
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
        table, missing = Path(options.classes), options.allow_missing
        return classes_by_table(places, table, there.places(), allow_missing=missing), "table"
    by_folder = {picture.place.as_posix(): picture.folder for picture in pictures}
    if lost := [place for place, label in by_folder.items() if label is None]:
        raise UserError(
            f"Which class does {lost[0]} show? {len(lost):,} of {len(places):,} images lie in no folder of a class. "
            "Sort them into folders, or pass --classes FILE.csv with lines 'image,class', or name the categories that "
            "are whole objects: --objects car,bus."
        )
    return by_folder, "folder"


def _numbered(arranged: Sequence[Arranged]) -> dict[str, dict[str, int]]:
    """Number the parts of all classes from 1 on, in the order of their names."""
    parts_by_class: dict[str, set[str]] = {}
    for _, subjects, parts in arranged:
        for mark, subject in parts:
            if subject >= 0:
                parts_by_class.setdefault(subjects[subject][0], set()).add(mark.category)
    return number_parts(parts_by_class)


def number_parts(parts_by_class: Mapping[str, set[str]]) -> dict[str, dict[str, int]]:
    """Number the parts of all classes from 1 on, classes and parts in the order of their names.

    Raises:
        UserError: a class cannot be the name of a folder, or there are too many parts.
    """
    for label in parts_by_class:
        check_class_name(label)
    count = sum(len(parts) for parts in parts_by_class.values())
    if count > MOST:
        raise UserError(f"The source has {count:,} parts in all classes, and a mask can have {MOST:,}.")
    numbers = iter(range(1, count + 1))
    return {
        label: {part: next(numbers) for part in sorted(parts_by_class[label])}
        for label in sorted(parts_by_class)
    }


def _units(
    arranged: Sequence[Arranged],
    names: Mapping[str, Mapping[str, int]],
    options: Options,
    left_out: Counter[str],
) -> dict[str, MarkedPhotograph]:
    """Make the units: for each picture what is painted, and the samples that it gives."""
    used: set[str] = set()
    units = {}
    for picture, subjects, parts in arranged:
        with_parts = sorted({subject for _, subject in parts if subject >= 0})
        if bare := len(subjects) - len(with_parts):
            left_out["without parts"] += bare
        chosen = with_parts
        if options.largest and len(chosen) > 1:
            left_out["smaller than another"] += len(chosen) - 1
            chosen = [max(chosen, key=lambda k: (_size(subjects[k][1]), -k))]
        if not chosen:
            continue
        paints = [
            Painted(names[subjects[subject][0]][mark.category] if subject >= 0 else 0,
                    chosen.index(subject) if subject in chosen else -1, mark)
            for mark, subject in parts
        ]  # fmt: skip
        samples = []
        for k in chosen:
            label, box = subjects[k]
            name = sample_name(picture.place, label)
            name = unused(f"{name}_{k + 1}" if len(with_parts) > 1 else name, label, used)
            samples.append(Subject(label, name, box))
        units[picture.place.as_posix()] = MarkedPhotograph(
            replace(picture, marks=()), paints, samples, options.seed
        )
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
