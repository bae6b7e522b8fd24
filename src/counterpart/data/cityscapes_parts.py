"""Cityscapes Panoptic Parts: crops of humans and vehicles with 9 parts, as the part-model paper prepares them.

Sources: Cordts et al. 2016 (Cityscapes); Meletis et al. 2020 (its parts); Sitawarin et al. 2023, appendix A.

A pixel's id is hierarchical: class; class * 1000 + instance; or class * 100000 + instance * 100 + part. Instances
are numbered from 0; a region of several that were not told apart (a crowd) has a class alone.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from ..errors import UserError
from ..seeding import derive
from .crops import Box, cut, square_region
from .decoding import decode
from .opening import open_image
from .plans import Extracted, Options, Plan, Sample

NAMES = {
    "human": {"torso": 1, "head": 2, "arm": 3, "leg": 4},
    "vehicle": {"window": 5, "wheel": 6, "light": 7, "license plate": 8, "chassis": 9},
}
CLASS_IDS = {"human": (24, 25), "vehicle": (26, 27, 28)}  # person, rider; car, truck, bus
LABEL_OF = {number: label for label, numbers in CLASS_IDS.items() for number in numbers}
PUBLISHED = 29_728
MIN_AREA = 1000  # the fewest pixels that an object may have
PUBLISHED_PAD = 0.2
LARGEST = 99_999_99  # the largest id that a file may hold

ABOUT = f"""\
Cityscapes Panoptic Parts: {PUBLISHED:,} crops of humans and vehicles from photographs of streets, with 9 parts.
Papers: Cordts et al. 2016, https://arxiv.org/abs/1604.01685; Meletis et al. 2020, https://arxiv.org/abs/2004.07944;
preparation: Sitawarin et al. 2023, appendix A.

To be downloaded by hand, after registration, from https://www.cityscapes-dataset.com/downloads/:
  leftImg8bit_trainvaltest.zip (11 GB)  gtFinePanopticParts_trainval.zip
Licence: the photographs and their annotations for non-commercial use (https://www.cityscapes-dataset.com/license/),
the part annotations Apache-2.0 (https://github.com/pmeletis/panoptic_parts).

Source folder:
  DIR/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
  DIR/gtFinePanopticParts/train/aachen/aachen_000000_000019_gtFinePanopticParts.tif        (and val)

What is made of it: every instance of person, rider, car, truck and bus with part annotation and {MIN_AREA} pixels or
more, unless in its box a class of the other label covers more than half as many pixels as its own. Each is cropped
as a square with a random margin of 0 to 10 % on every side that always holds the whole object; what lies beyond the
photograph is black. The mask has the parts of everything in the crop.

The published code skips the first instance of each class in each photograph, keeps crowds as samples, keeps objects
without parts, and its margins of up to 56 % can cut off a piece of the object; --published does the same. Its
listing of files follows the file system and its draws follow the listing, so its very crops and splits cannot be had
again.

Crops of one photograph overlap: --split photograph or --split city keeps them together."""


class Frame(NamedTuple):
    """A unit of the preparation: a photograph and its annotation."""

    name: str
    city: str
    photograph: str
    image: Path
    ids: Path
    seed: int
    published: bool


def plan(source: Path, options: Options) -> Plan:
    """Read the source folder, and plan what there is to prepare.

    Raises:
        UserError: if folders or photographs are missing.
    """
    root = source / "gtFinePanopticParts"
    annotations = sorted(
        (path for split in ("train", "val") for path in (root / split).glob("*/*.tif")),
        key=lambda path: path.relative_to(root).as_posix(),
    )
    if not annotations:
        raise UserError(
            f"{root} has no train/CITY/*.tif and no val/CITY/*.tif. See: counterpart data describe cityscapes"
        )
    units: dict[str, Frame] = {}
    missing: list[Path] = []
    for ids in annotations:
        name = ids.name.removesuffix(".tif").removesuffix("_gtFinePanopticParts")
        place = Path("leftImg8bit") / ids.parent.relative_to(root) / f"{name}_leftImg8bit.png"
        image = source / place
        if not image.is_file():
            missing.append(image)
            continue
        if name in units:
            raise UserError(f"{ids} and {units[name].ids} annotate the same photograph.")
        units[name] = Frame(
            name, ids.parent.name, place.as_posix(), image, ids, options.seed, options.published
        )
    if missing and not options.allow_missing:
        raise UserError(
            f"{len(missing):,} photographs are annotated and not there, the first is {missing[0]}. Put them there, or "
            "pass --allow-missing to leave them out."
        )
    return Plan(
        name="cityscapes",
        names=NAMES,
        units=units,
        extract=extract,
        pools=[tuple(NAMES)] if options.published else [(name,) for name in NAMES],
        published=PUBLISHED,
        notes=[f"{len(missing):,} photographs are annotated and not there: left out"] if missing else [],
    )


def extract(unit: Frame) -> Extracted:
    """Cut the samples out of a frame.

    Raises:
        UserError: if a file is damaged, sizes differ, or ids break the format.
    """
    image, ids = decode(unit.image).permute(1, 2, 0).numpy(), _read_ids(unit.ids)
    if image.shape[:2] != ids.shape:
        raise UserError(
            f"{unit.ids} is {ids.shape[1]} x {ids.shape[0]} and {unit.image} is {image.shape[1]} x {image.shape[0]}."
        )
    classes, instances, _ = decode_ids(ids)
    masks = part_ids(ids)
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    for number, instance, area, box in _objects(classes, instances):
        reason = _why_not(number, instance, area, box, classes, instances, masks, unit.published)
        if reason is not None:
            left_out[reason] += 1
            continue
        name = f"{unit.name}_{number}_{'crowd' if instance < 0 else f'{instance:03d}'}"
        draws = np.random.default_rng(derive(unit.seed, f"cityscapes/{name}")).random(2)
        region = published_region(box, draws, ids.shape) if unit.published else square_region(box, draws)
        samples.append(
            Sample(name, LABEL_OF[number], unit.photograph, cut(image, region), cut(masks, region), unit.city)
        )
    return Extracted(samples, left_out)


def decode_ids(
    ids: Int[np.ndarray, "h w"],
) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, "h w"], Int[np.ndarray, "h w"]]:
    """Split each id into class, instance and part; -1 stands for what an id does not have."""
    has_part, has_instance = ids > 99_999, ids > 99
    both = np.where(has_part, ids // 100, ids)
    part = np.where(has_part, ids % 100, -1)
    return (
        np.where(has_instance, both // 1000, ids),
        np.where(has_instance, both % 1000, -1),
        np.where(part == 0, -1, part),
    )


def _lookup() -> UInt8[np.ndarray, " n"]:
    """A table of our part id for every id that a file may hold, up to the last class that has parts."""
    table = np.zeros((1 + max(LABEL_OF)) * 100_000, dtype=np.uint8)
    for number, label in LABEL_OF.items():
        of_class = table[number * 100_000 : (number + 1) * 100_000].reshape(1000, 100)  # instance, part
        for part, ours in enumerate(NAMES[label].values(), start=1):
            of_class[:, part] = ours
    return table


_TABLE = _lookup()


def part_ids(ids: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Translate a file's ids into our part ids, by a table; 0 stands for everything that is no part."""
    return np.where(ids < len(_TABLE), _TABLE[np.minimum(ids, len(_TABLE) - 1)], 0).astype(np.uint8)


def published_region(
    box: Box, draws: NDArray[np.float64], shape: tuple[int, ...], pad: float = PUBLISHED_PAD
) -> Box:
    """The square that the published code cuts out, which may cut the object off.

    It differs from ``square_region`` in four ways. The sides of the box are a pixel short. Margins are drawn as shares
    of the side after it was widened. The square is moved back to where the photograph with its black frame begins. It
    is cut off where the frame ends.
    """
    frame = int(max(*shape, 3) * 0.1)
    top, left = box.top + frame, box.left + frame
    height, width = box.bottom - 1 - box.top, box.right - 1 - box.left
    side = max(height, width)
    right, down = (2 * pad * draw for draw in draws)
    down_by, right_by = int((side - height) / 2), int((side - width) / 2)
    side += 2 * int(pad * side)
    top = max(0, top - down_by - int(down * side))
    left = max(0, left - right_by - int(right * side))
    bottom, end = min(top + side, shape[0] + 2 * frame), min(left + side, shape[1] + 2 * frame)
    return Box(top - frame, left - frame, bottom - frame, end - frame)


def _objects(classes: NDArray[np.int32], instances: NDArray[np.int32]) -> list[tuple[int, int, int, Box]]:
    """List class, instance, area and box of all that may become a sample, ordered by class and instance."""
    first = min(LABEL_OF)
    wanted = np.isin(classes, list(LABEL_OF))
    keys = np.where(wanted, (classes - first) * 1001 + instances + 2, 0)  # instance -1 is a crowd
    areas = np.bincount(keys.reshape(-1))
    objects = []
    for key, place in enumerate(ndimage.find_objects(keys), start=1):
        if place is None:
            continue
        rows, columns = place
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        objects.append((first + (key - 1) // 1001, (key - 1) % 1001 - 1, int(areas[key]), box))
    return objects


def _why_not(
    number: int,
    instance: int,
    area: int,
    box: Box,
    classes: NDArray[np.int32],
    instances: NDArray[np.int32],
    masks: NDArray[np.uint8],
    published: bool,
) -> str | None:
    """The reason why an object becomes no sample; None if it becomes one."""
    if published and instance == 0:
        return "first instance"
    if not published and instance < 0:
        return "crowd"
    if area < MIN_AREA:
        return "small"
    # the published box lacks its last row and column
    last = 1 if published else 0
    inside = (slice(box.top, box.bottom - last), slice(box.left, box.right - last))
    counts = np.bincount(classes[inside].reshape(-1), minlength=max(LABEL_OF) + 1)
    other = next(label for label in CLASS_IDS if label != LABEL_OF[number])
    if max(counts[k] for k in CLASS_IDS[other]) > counts[number] / 2:
        return "occluded"
    of_object = (classes[inside] == number) & (instances[inside] == instance)
    if not published and not masks[inside][of_object].any():
        return "without parts"
    return None


def _read_ids(path: Path) -> Int[np.ndarray, "h w"]:
    try:
        with open_image(path) as image:
            ids = np.array(image)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the annotation {path}: {error}. Replace it.") from None
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise UserError(
            f"{path} has mode {image.mode}, and a panoptic-parts annotation has one channel of 32 bits."
        )
    ids = ids.astype(np.int32)
    wrong = (ids < 0) | (ids > LARGEST) | ((ids > 99) & (ids < 1000))
    if wrong.any():
        raise UserError(f"{path} holds the id {ids[wrong][0]}, which no panoptic-parts annotation has.")
    return ids
