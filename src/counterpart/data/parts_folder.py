"""Images with part masks in one folder format: your own, or what ``counterpart data prepare`` writes.

DIR/images/train/cat/7.jpg    DIR/parts/train/cat/7.png    DIR/parts.json
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..errors import UserError, nearest, unreadable
from ..parsing import read_json
from .cropping import Region, square_around_parts
from .decoding import SUFFIXES, Prepare
from .folder import files_fingerprint, load_folder
from .folder_layout import visible_files
from .image_sets import ImageSet, Splits, content_fingerprint
from .parts import MOST, PartNames, Parts, decode_masks, largest, mask_ids

IMAGES, MASKS, TABLE = "images", "parts", "parts.json"
MASK_SUFFIXES = (*SUFFIXES, ".tif", ".tiff", ".gif")  # files that may be meant as masks; only .png is read


def load_parts(
    root: Path | None = None,
    *,
    validation: float = 0.1,
    size: int | None = None,
    download: bool = False,
    prepare: Prepare | None = None,
    fold: str | None = None,
    crop_to_parts: float | None = None,
) -> Splits:
    """Read images from ``root/images`` as ``load_folder`` does, each with its mask from ``root/parts``.

    The mask of ``images/train/cat/7.jpg`` is ``parts/train/cat/7.png``: one channel of part ids, 0 is background, as
    large as the image. An image without a mask is one whose parts nobody annotated.

    Args:
        root: the folder.
        validation: share of the training images that is kept for validation if there is no folder for it.
        size: resize the shorter side to this many pixels and crop the centre; masks by the nearest pixel.
        download: there is nothing to download; refused.
        prepare: makes ``size`` x ``size`` pixels of each image instead. Masks cannot follow, and are left out.
        fold: "K/N" to judge on the K-th of N folds, as in ``load_folder``.
        crop_to_parts: crop each annotated image and its mask to the square around its parts and a margin on each side
            of this share of its side, before they are resized. Images without annotated parts stay whole.

    Raises:
        UserError: as ``load_folder``; and if ``parts.json`` is missing, wrong or has other classes than the folders,
            there is no mask, a mask belongs to no image or to two, does not fit its image or holds ids that mean
            nothing; and if ``crop_to_parts`` comes without ``size``.
    """
    if root is None:
        raise UserError(f"Where are images and masks? Name the folder of {TABLE} with --data.root DIR.")
    if download:
        raise UserError("data.download: a folder of your own images cannot be downloaded. Leave it out.")
    root = Path(root).expanduser()
    names = read_table(root)
    require_images(root)
    if crop_to_parts is not None and size is None:
        raise UserError(
            f"data.crop_to_parts {crop_to_parts:g} makes squares of many sizes: say with --data.size to how many "
            "pixels they are resized."
        )
    box_of = None if crop_to_parts is None else partial(_box_of, root=root, margin=crop_to_parts)
    loaded = load_folder(
        root / IMAGES, validation=validation, size=size, prepare=prepare, fold=fold, box_of=box_of
    )
    images = [
        image for of_set in (loaded.train, loaded.validation, loaded.test) for image in of_set.files or ()
    ]
    masks = [mask_of(root, image) for image in images]
    _no_shared_masks(zip(masks, images, strict=True))
    if prepare is None and (problem := misplaced_masks(root, images)):
        raise UserError(problem)
    of_masks = files_fingerprint(root, [root / TABLE, *sorted(mask for mask in masks if mask.is_file())])
    fingerprint = content_fingerprint(
        [
            loaded.test.fingerprint.encode(),
            of_masks.encode(),
            *([] if crop_to_parts is None else [f"cropped to parts {crop_to_parts!r}".encode()]),
        ]
    )
    named = loaded.each(lambda images: replace(images, name="parts", fingerprint=fingerprint))
    return named if prepare is not None else named.each(lambda images: _annotated(images, root, names))


def read_table(root: Path) -> PartNames:
    """Read the part names of ``parts.json``: {class: {part: id}}, with the classes in their order.

    Raises:
        UserError: if the file is missing or does not say what it should.
    """
    path = root / TABLE
    form = '{"classes": ["cat", ...], "parts": {"cat": {"head": 1, ...}, ...}}'
    try:
        table = read_json(path, object_pairs_hook=_no_twins)
    except FileNotFoundError:
        raise UserError(f"{path} is missing. It names the parts of each class: {form}.") from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not isinstance(table, dict) or not isinstance(table.get("parts"), dict):
        raise UserError(f"{path} must hold {form}.")
    parts, classes = table["parts"], table.get("classes", sorted(table["parts"]))
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{path}: classes must be a list of names.")
    if table.get("background", 0) != 0:
        raise UserError(f"{path}: background is {table['background']!r}, and it must be 0.")
    for name in parts:
        if name not in classes:
            raise UserError(f"{path} has parts of {name!r}, which is no class. {nearest(name, classes)}")
    owner: dict[int, str] = {}
    for name in classes:
        for part, number in (_parts_of(path, parts, name)).items():
            if type(number) is not int or not 1 <= number <= MOST:
                raise UserError(
                    f"{path}: {name} {part} has id {number!r}; ids are whole numbers from 1 (0 is background)."
                )
            if number in owner:
                raise UserError(f"{path}: {owner[number]} and {name} {part} have the same id {number}.")
            owner[number] = f"{name} {part}"
    names = {name: dict(parts.get(name, {})) for name in sorted(classes)}
    if not owner:
        raise UserError(f"{path} names no part.")
    if missing := set(range(1, largest(names))) - set(owner):
        raise UserError(
            f"{path}: ids run to {largest(names)} and {min(missing)} is missing. Number the parts from 1 on."
        )
    return names


def require_images(root: Path) -> None:
    """Refuse a folder without images by a UserError."""
    if not (root / IMAGES).is_dir():
        raise UserError(
            f"{root} has no folder {IMAGES}: expected {root / IMAGES / 'train' / 'CLASS' / 'IMAGE.jpg'}."
        )


def mask_of(root: Path, image: Path) -> Path:
    """The path at which the mask of an image is expected."""
    return root / MASKS / image.relative_to(root / IMAGES).with_suffix(".png")


def mask_beside(image: Path) -> Path | None:
    """The mask of an image file that lies in a folder of parts; None where it lies elsewhere, or has no mask."""
    image = image.absolute()
    for folder in image.parents:
        if folder.name == IMAGES and (folder.parent / TABLE).is_file():
            mask = mask_of(folder.parent, image)
            return mask if mask.is_file() else None
    return None


def misplaced_masks(root: Path, images: Sequence[Path]) -> str | None:
    """What is wrong with the names of the masks, in a sentence: there is none, or some belong to no image."""
    folder = root / MASKS
    example = mask_of(root, min(images)) if images else folder / "train" / "CLASS" / "IMAGE.png"
    there = visible_files(folder) if folder.is_dir() else []
    files = [path for path in there if path.name.lower().endswith(MASK_SUFFIXES)]
    if not files:
        return (
            f"{folder} {'holds no masks' if folder.is_dir() else 'is missing'}: expected files such as {example}. "
            f"Images without part masks are --data.name folder --data.root {root / IMAGES}."
        )
    strangers = sorted(set(files) - {mask_of(root, image) for image in images})
    if not strangers:
        return None
    pattern = _pattern(strangers[0], root, images)
    form = f"they look like {pattern}, and " if pattern else ""
    return (
        f"{len(strangers):,} of the {len(files):,} masks in {folder} belong to no image, such as {strangers[0]}: {form}"
        f"the mask of x.jpg is x.png, in the same folder of {MASKS} ({example}). Rename or remove them."
    )


def _pattern(stranger: Path, root: Path, images: Sequence[Path]) -> str | None:
    """How a mask is named after an image of its folder: "x_mask.png" of 7_mask.png for 7.jpg; None if it is not."""
    folder = root / IMAGES / stranger.relative_to(root / MASKS).parent
    stems = [image.stem for image in images if image.parent == folder]
    within = [stem for stem in stems if stranger.stem.startswith(stem) or stranger.stem.endswith(stem)]
    if not within:
        return None
    stem = max(within, key=len)
    before, _, after = stranger.stem.partition(stem)
    return f"{before}x{after}{stranger.suffix}"


def _annotated(images: ImageSet, root: Path, names: PartNames) -> ImageSet:
    if sorted(names) != list(images.classes):
        (odd, *_) = sorted(set(names) ^ set(images.classes))
        there, absent = (TABLE, IMAGES) if odd in names else (IMAGES, TABLE)
        raise UserError(
            f"{root}: class {odd!r} is in {there} and not in {absent}. Both need the same classes."
        )
    assert images.files is not None
    masks = [mask_of(root, image) for image in images.files]
    files = tuple(mask if mask.is_file() else None for mask in masks)
    annotated = torch.tensor([mask is not None for mask in files], dtype=torch.bool)
    parts = Parts(names=names, stored=largest(names), there=annotated, files=files)
    if images.pixels is not None:
        height, width = images.shape[1:]
        parts = replace(
            parts, masks=decode_masks(files, images.files, (height, width), parts.stored, images.boxes)
        )
    return replace(images, parts=parts)


def _box_of(image: Path, root: Path, margin: float) -> Region | None:
    """The region of an image that its annotated parts leave of it."""
    mask = mask_of(root, image)
    return square_around_parts(mask_ids(mask), margin) if mask.is_file() else None


def _no_shared_masks(pairs: Iterable[tuple[Path, Path]]) -> None:
    first: dict[Path, Path] = {}
    for mask, image in pairs:
        if mask in first:
            raise UserError(f"{first[mask]} and {image} share the mask {mask}: rename one of the images.")
        first[mask] = image


def _parts_of(path: Path, parts: dict[str, object], name: str) -> dict[str, object]:
    parts_of_class = parts.get(name, {})
    if not isinstance(parts_of_class, dict):
        raise UserError(f'{path}: the parts of {name} must look like {{"head": 1}}.')
    return parts_of_class


def _no_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a mapping of a JSON object, and refuse a key that is there twice: json would silently take the last."""
    keyed = dict(pairs)
    if len(keyed) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return keyed
