"""Part labels as folders of masks, whose values a table names: palettes, grey values or colours.

Sources: the masks of PASCAL VOC, and of CVAT's "segmentation mask" and CamVid exports.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .. import progress
from ..errors import UserError
from .decoding import WORKERS
from .folder_layout import class_folders, image_files, visible_files
from .marked import identity, number_parts
from .name_tables import LINES, NameTable, PixelValue, packed, read_names, shown
from .opening import open_image
from .parts_folder import MASK_SUFFIXES
from .plans import Extracted, Options, Plan, Sample
from .sources import (
    check_splits,
    class_in,
    classes_by_table,
    refuse_empty_classes,
    said_of_missing,
    said_of_splits,
    sample_name,
    split_in,
    unused,
)  # fmt: skip
from .upright import read_upright

IMAGE_FOLDERS = ("images", "image", "jpegimages", "imgs", "img", "photos")
MASK_FOLDERS = (
    "masks",
    "mask",
    "segmentationclass",
    "parts",
    "labels",
    "label",
    "annotations",
    "segmentations",
)
ENDINGS = ("", "_mask", "-mask", "_seg", "_parts", "_label", "_labels")  # of a mask's name after its image's
TABLES = (".csv", ".json", ".txt")

ABOUT = """\
Masks: your own part labels as images, in which a table names each value.

Source folder: images and masks of the same names in two folders, and the table, such as
  DIR/images/car/7.jpg  DIR/masks/car/7.png  DIR/names.csv
  DIR/JPEGImages/7.jpg  DIR/SegmentationClass/7.png  DIR/labelmap.txt      (CVAT, PASCAL VOC)
The table (--names FILE, or the only .csv, .json or .txt in DIR) has a line for each value: 1,wheel for grey masks and
indices of palettes; 255,0,0,wheel or #ff0000,wheel for colours; JSON {"1": "wheel"} or {"wheel": [255, 0, 0]}. What it
calls background is no part; 0 and black are background unless it says otherwise.

What is made of it: every photograph with a mask is a sample. A mask with a value that the table does not name is
refused, by its file and the value, before anything is written.
The class is the folder of the image; --classes FILE.csv (lines "image,class") says otherwise."""


class MaskedPhotograph(NamedTuple):
    """A unit of the preparation: a photograph and its mask, and what each value of it becomes."""

    place: PurePosixPath
    image: Path
    mask: Path
    label: str
    name: str
    split: str | None
    ids: Mapping[PixelValue, int]
    table: NameTable


def plan(source: Path, options: Options) -> Plan:
    """Read the source folder, and plan what there is to prepare. Every mask is decoded once, to see its values.

    Raises:
        UserError: folders or the table are missing or wrong, masks are damaged or have values without a name, or
            classes cannot be told.
    """
    if options.classes == "object":
        raise UserError(
            "--classes object: masks have no objects. Say folder, or a CSV with lines 'image,class'."
        )
    images_root, masks_root = _folder(source, IMAGE_FOLDERS), _folder(source, MASK_FOLDERS)
    table = read_names(options.names.expanduser() if options.names else _table_in(source, options))
    pairs, bare, strangers = _pairs(images_root, masks_root, options)
    there = [path.relative_to(source).as_posix() for path in image_files(images_root)]
    labels = _labels(source, list(pairs), there, options)
    wanted = [image for image in pairs if labels[image] is not None]
    values_of_masks = _values([pairs[image] for image in wanted], table)
    parts: dict[str, set[str]] = {}
    for image, values in zip(wanted, values_of_masks, strict=True):
        names = {table.names[value] for value in values} - {None}
        parts.setdefault(str(labels[image]), set()).update(name for name in names if name is not None)
    left_out = Counter({"without a mask": bare} if bare else {})
    if leaves := len(pairs) - len(wanted):
        left_out["with an empty class"] = leaves
    if without := [label for label, of_class in parts.items() if not of_class]:
        raise UserError(
            f"No mask of the class {without[0]!r} shows a part that {table.path} names: mend the table or the masks."
        )
    numbers = number_parts(parts)
    units: dict[str, MaskedPhotograph] = {}
    used: set[str] = set()
    for image in wanted:
        label = str(labels[image])
        place = PurePosixPath(image.relative_to(source).as_posix())
        name = unused(sample_name(place, label), label, used)
        ids = {value: numbers[label].get(part, 0) if part else 0 for value, part in table.names.items()}
        units[place.as_posix()] = MaskedPhotograph(
            place, image, pairs[image], label, name, split_in(place.parent.parts), ids, table
        )
    if not units:
        raise UserError(f"masks: no image in {images_root} has a mask in {masks_root}.")
    split = check_splits([(unit.label, unit.split) for unit in units.values()], options)
    classes = (
        "the folders of the images" if options.classes in (None, "folder") else f"those of {options.classes}"
    )
    plan_of_masks = Plan(
        name="masks",
        names=numbers,
        units=units,
        extract=extract,
        notes=[
            *said_of_missing(strangers),
            f"Classes are {classes}: {', '.join(numbers)}",
            *_said_of_classes_without_masks(images_root, numbers, options),
            said_of_splits(split, options),
        ],
        split=split,
        identity=identity(
            "folder" if options.classes in (None, "folder") else "table",
            numbers,
            [(unit.label, unit.name) for unit in units.values()],
        ),
        left_out=left_out,
    )
    if options.classes in (None, "folder"):
        refuse_empty_classes(images_root, numbers)
    return plan_of_masks


def extract(unit: MaskedPhotograph) -> Extracted:
    """Make the sample of a photograph.

    Raises:
        UserError: if a file is damaged, sizes differ, or the mask has a value without a name.
    """
    values = read_values(unit.mask, unit.table)
    large = max(unit.ids.values(), default=0) > 255
    different, where = np.unique(values, return_inverse=True)
    _refuse_unknown(unit.mask, different.tolist(), values, unit.table)
    ids = np.array(
        [unit.ids.get(value, 0) for value in different.tolist()], dtype=np.uint16 if large else np.uint8
    )
    height, width = values.shape
    mask = ids[where].reshape(height, width)
    image = read_upright(unit.image, (height, width), str(unit.mask))
    if not mask.any():
        return Extracted(left_out={"without parts": 1})
    return Extracted(
        [Sample(unit.name, unit.label, unit.place.as_posix(), image.as_stored, mask, source=unit.split)]
    )


def read_values(path: Path, table: NameTable) -> Int[np.ndarray, "h w"]:
    """The value of each pixel of a mask, as its table counts: indices and grey values, or colours.

    Transparent pixels are background.

    Raises:
        UserError: the file is damaged, or has colours where the table has numbers.
    """
    try:
        with open_image(path) as mask:
            if (not table.colours and mask.mode in ("1", "L", "P", "I")) or mask.mode.startswith("I;16"):
                values = np.array(mask).astype(np.int32)
                if table.colours:
                    raise UserError(
                        f"The mask {path} has 16 bits, and {table.path} names colours: give it numbers."
                    )
                return values
            pixels = np.array(mask.convert("RGBA"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the mask {path}: {error}. Replace or remove it.") from None
    pixels[pixels[..., 3] == 0] = 0
    red, green, blue = (pixels[..., k] for k in range(3))
    if table.colours:
        return np.asarray(packed(*(channel.astype(np.int32) for channel in (red, green, blue))))
    if not (np.array_equal(red, green) and np.array_equal(red, blue)):
        raise UserError(f"The mask {path} is in colours, and {table.path} names numbers: name colours there.")
    return red.astype(np.int32)


def _values(masks: Sequence[Path], table: NameTable) -> list[frozenset[PixelValue]]:
    """The values that each mask has, all of which have names."""

    def look(mask: Path) -> frozenset[PixelValue]:
        values = read_values(mask, table)
        different = np.unique(values).tolist()
        _refuse_unknown(mask, different, values, table)
        return frozenset(different)

    values_of_masks = []
    with (
        ThreadPoolExecutor(WORKERS) as pool,
        progress.track("reading masks", len(masks), unit="masks") as bar,
    ):
        for values in pool.map(look, masks):
            values_of_masks.append(values)
            bar.advance(1)
    return values_of_masks


def _refuse_unknown(
    mask: Path, different: Sequence[PixelValue], values: np.ndarray, table: NameTable
) -> None:
    unknown = [value for value in different if value not in table.names]
    if not unknown:
        return
    pixels = int((values == unknown[0]).sum())
    others = f", and {len(unknown) - 1:,} other such values" if len(unknown) > 1 else ""
    lossy = " JPEG blurs masks: export them as PNG." if mask.suffix.lower() in (".jpg", ".jpeg") else ""
    raise UserError(
        f"The mask {mask} has {shown(unknown[0], table.colours)} on {pixels:,} pixels{others}, which {table.path} "
        f"does not name: add it (as background, if it is no part), or mend the mask.{lossy}"
    )


def _folder(source: Path, known: Sequence[str]) -> Path:
    folders = [path for path in class_folders(source) if path.name.casefold() in known]
    if len(folders) != 1:
        there = ", ".join(path.name for path in class_folders(source)) or "no folders"
        both = f"both {folders[0].name} and {folders[1].name}" if folders else there
        raise UserError(
            f"{source} has {both}: expected images in one of {', '.join(IMAGE_FOLDERS[:3])}, ... and masks in one of "
            f"{', '.join(MASK_FOLDERS[:3])}, ... See: counterpart data describe masks"
        )
    return folders[0]


def _table_in(source: Path, options: Options) -> Path:
    """The only table in a source, or the only one that is called as tables are."""
    taken = Path(options.classes).expanduser().resolve() if options.classes not in (None, "folder") else None
    files = [
        path
        for path in sorted(source.iterdir())
        if path.suffix.lower() in TABLES and path.is_file() and path.resolve() != taken
    ]
    named = [path for path in files if re.search("name|label|colou?r|class|part", path.stem.casefold())]
    files = named or files
    if len(files) != 1:
        what = ", ".join(path.name for path in files) or "no .csv, .json or .txt"
        raise UserError(
            f"{source} has {what}: say which file names the values of the masks by --names FILE ({LINES})."
        )
    return files[0]


def _said_of_classes_without_masks(images_root: Path, there: Collection[str], options: Options) -> list[str]:
    """Which folders of classes have images and not one mask, so that their class is missing from the data."""
    if options.classes not in (None, "folder"):
        return []
    counts = Counter(
        class_in(PurePosixPath(path.relative_to(images_root))) for path in image_files(images_root)
    )
    lost = [f"{label} ({count:,} images)" for label, count in counts.items() if label and label not in there]
    if not lost:
        return []
    return [f"No image has a mask, and so there is no such class: {', '.join(sorted(lost))}"]


def _pairs(images_root: Path, masks_root: Path, options: Options) -> tuple[dict[Path, Path], int, int]:
    """Each image with its mask, how many images have none, and how many masks have no image."""
    masks = {
        path.relative_to(masks_root).with_suffix("").as_posix(): path
        for path in visible_files(masks_root)
        if path.name.lower().endswith(MASK_SUFFIXES)
    }
    pairs: dict[Path, Path] = {}
    images = image_files(images_root)
    for image in images:
        place = image.relative_to(images_root).with_suffix("").as_posix()
        names = [f"{name}{ending}" for name in (place, image.stem) for ending in ENDINGS]
        mask = next((masks[name] for name in names if name in masks), None)
        if mask is not None:
            pairs[image] = mask
    first: dict[Path, Path] = {}
    for image, mask in pairs.items():
        if mask in first:
            raise UserError(f"{first[mask]} and {image} share the mask {mask}: rename one of the images.")
        first[mask] = image
    strangers = sorted(set(masks.values()) - set(first))
    if strangers and not options.allow_missing:
        raise UserError(
            f"{len(strangers):,} images are annotated and not there, the first is that of {strangers[0]}. Put them "
            f"into {images_root}, or pass --allow-missing to leave them out."
        )
    return pairs, len(images) - len(pairs), len(strangers)


def _labels(
    source: Path, images: Sequence[Path], there: Sequence[str], options: Options
) -> dict[Path, str | None]:
    places = {image: image.relative_to(source).as_posix() for image in images}
    if options.classes not in (None, "folder"):
        assert options.classes is not None
        table = classes_by_table(
            places.values(), Path(options.classes), there, allow_missing=options.allow_missing
        )
        return {image: table[place] for image, place in places.items()}
    labels = {image: class_in(PurePosixPath(place)) for image, place in places.items()}
    if lost := [places[image] for image, label in labels.items() if label is None]:
        raise UserError(
            f"Which class does {lost[0]} show? {len(lost):,} of {len(images):,} images lie in no folder of a class. "
            "Sort them into folders, or pass --classes FILE.csv with lines 'image,class'."
        )
    return labels
