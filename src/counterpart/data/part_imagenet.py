"""Part-ImageNet: 11 groups of 158 ImageNet classes with 40 parts, as the part-model paper prepares it.

Sources: He et al. 2022, "PartImageNet: a large, high-quality dataset of parts"; Sitawarin et al. 2023, appendix A.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ..errors import UserError
from . import coco
from .decoding import decode
from .plans import Extracted, Options, Plan, Sample

FILES = ("train.json", "test.json", "val.json")  # the published order
# In the published order of the shuffles; the parts in the order of the release, the ids by sorted classes.
PARTS: dict[str, tuple[str, ...]] = {
    "Quadruped": ("head", "body", "foot", "tail"),
    "Biped": ("head", "body", "hand", "foot", "tail"),
    "Fish": ("head", "body", "fin", "tail"),
    "Bird": ("head", "body", "wing", "foot", "tail"),
    "Snake": ("head", "body"),
    "Reptile": ("head", "body", "foot", "tail"),
    "Car": ("body", "tire", "side mirror"),
    "Bicycle": ("body", "head", "seat", "tire"),
    "Boat": ("body", "sail"),
    "Aeroplane": ("head", "body", "engine", "wing", "tail"),
    "Bottle": ("mouth", "body"),
}
PUBLISHED = 24_095


def _numbered() -> dict[str, dict[str, int]]:
    numbers = iter(range(1, 1 + sum(map(len, PARTS.values()))))
    return {name: {part: next(numbers) for part in PARTS[name]} for name in sorted(PARTS)}


NAMES = _numbered()

ABOUT = f"""\
Part-ImageNet: {PUBLISHED:,} photographs of ImageNet's training set in 11 classes, with 40 parts.
Paper: He et al. 2022, https://arxiv.org/abs/2112.00933; preparation: Sitawarin et al. 2023, appendix A.

To be downloaded by hand, from https://github.com/TACJu/PartImageNet:
  train.json, val.json, test.json (the original release, whose splits share no ImageNet class: 16,540 / 2,957 / 4,598)
  and the images, as JPEGImages/<synset>/<synset>_<n>.JPEG (or <split>/<synset>/..., as the archives unpack).
Licence: the photographs are ImageNet's, for non-commercial research and education (https://image-net.org/download);
for the annotations see the repository above.

Source folder:
  DIR/train.json  DIR/val.json  DIR/test.json  DIR/JPEGImages/n02119789/n02119789_1.JPEG

What is made of it: all three splits are pooled, and each class is split anew, 80 / 10 / 10 %, in the order and with
the shuffles of the published code, so that seed 0 has the images of the published lists. A photograph's mask is
painted in the order of the annotations, the later ones over the earlier."""


class Photograph(NamedTuple):
    """A unit of the preparation: a photograph under one of its classes."""

    label: str
    name: str
    path: Path
    size: tuple[int, int]  # height, width
    annotations: list[tuple[int, object]]  # part id, segmentation
    json: Path


def plan(source: Path, options: Options) -> Plan:
    """Read the source folder, and plan what there is to prepare.

    Raises:
        UserError: if files are missing or damaged.
    """
    units: dict[str, Photograph] = {}
    missing: list[str] = []
    for file in FILES:
        for photograph in _photographs(source, source / file):
            if not photograph.path.is_file():
                missing.append(f"{photograph.name} of {photograph.json.name}")
                continue
            key = f"{photograph.label}/{photograph.name}"
            if key in units:
                raise UserError(f"{photograph.name} is in {units[key].json} and again in {photograph.json}.")
            units[key] = photograph
    if missing and not options.allow_missing:
        raise UserError(
            f"{source}: {len(missing):,} images are annotated and not there, the first is {missing[0]}. Put them into "
            "JPEGImages/<synset>, or pass --allow-missing to leave them out."
        )
    return Plan(
        name="part-imagenet",
        names=NAMES,
        units=units,
        extract=extract,
        pools=[(name,) for name in PARTS],
        published=PUBLISHED,
        notes=[f"{len(missing):,} images are annotated and not there: left out"] if missing else [],
    )


def extract(unit: Photograph) -> Extracted:
    """Make the sample of a photograph: its image and its mask.

    Raises:
        UserError: if the image is damaged or has another size than its annotation, or the annotation is wrong.
    """
    height, width = decode(unit.path).shape[1:]
    if (height, width) != unit.size:
        raise UserError(
            f"{unit.path} is {width} x {height}, and {unit.json} says {unit.size[1]} x {unit.size[0]}: "
            "take the image of the release."
        )
    try:
        mask = paint(unit.annotations, height, width)
    except ValueError as error:
        raise UserError(f"{unit.json}: the annotation of {unit.name} has {error}.") from None
    group = unit.path.parent.name
    return Extracted([Sample(unit.name, unit.label, f"{group}/{unit.path.name}", unit.path, mask)])


def paint(annotations: list[tuple[int, object]], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Paint (part id, segmentation) pairs into a mask, later ones over earlier ones.

    Raises:
        ValueError: if a segmentation cannot be read.
    """
    painted = np.zeros((height, width), dtype=np.uint8)
    for part, segmentation in annotations:
        painted[coco.mask(segmentation, height, width)] = part
    return painted


def _photographs(source: Path, path: Path) -> Iterator[Photograph]:
    """Yield the photographs of a file: for each class, in the published order, those that show a part of it."""
    images, categories, annotations = coco.read(path)
    part_of = _part_ids(path, categories)
    by_image: dict[int, list[dict[str, Any]]] = {}
    by_category: dict[int, list[int]] = {}
    for row in annotations:
        by_image.setdefault(row["image_id"], []).append(row)
        by_category.setdefault(row["category_id"], []).append(row["image_id"])
    for name in PARTS:
        categories_of_class = [number for number, row in categories.items() if row["supercategory"] == name]
        # The published code collects ids in sets and walks through one: its shuffles start from that order. It is that
        # of Python's sets of whole numbers, which has been the same for as long as there are such sets in CPython.
        walked = set(
            chain.from_iterable(list(set(by_category.get(number, []))) for number in categories_of_class)
        )
        for number in walked:
            image = images[number]
            outlines = [
                (part_of[row["category_id"]], row["segmentation"])
                for row in by_image[number]
                if row.get("area") != 0
            ]
            stem = Path(image["file_name"]).stem
            place = _found(source, path.stem, Path(image["file_name"]).name)
            yield Photograph(name, stem, place, (image["height"], image["width"]), outlines, path)


def _part_ids(path: Path, categories: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
    """Map each category to our part id: the k-th category of a class is its k-th part.

    Raises:
        UserError: if the classes have not as many parts as those of the release.
    """
    ids: dict[int, int] = {}
    for name in NAMES:
        categories_of_class = [
            number for number, row in categories.items() if row.get("supercategory") == name
        ]
        if len(categories_of_class) != len(NAMES[name]):
            raise UserError(
                f"{path}: class {name} has {len(categories_of_class)} categories, and Part-ImageNet has "
                f"{len(NAMES[name])} ({', '.join(NAMES[name])}): take the json files of the original release."
            )
        ids.update(zip(categories_of_class, NAMES[name].values(), strict=True))
    if others := [row["name"] for number, row in categories.items() if number not in ids]:
        raise UserError(
            f"{path} has the category {others[0]!r}, which is no part of Part-ImageNet's 11 classes."
        )
    return ids


def _found(source: Path, split: str, file: str) -> Path:
    """The path of an image; the usual one if it is nowhere."""
    synset = file.split("_")[0]
    places = [
        source / "JPEGImages" / synset / file,
        source / split / synset / file,
        source / "JPEGImages" / file,
    ]
    return next((place for place in places if place.is_file()), places[0])
