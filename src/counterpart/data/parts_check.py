"""Look through a folder of images with part masks: what is there, and everything that is wrong with it, by file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import progress
from ..errors import UserError
from .decoding import WORKERS, decode
from .folder import split_folders
from .folder_layout import files_by_class
from .parts import PartNames, decode_mask
from .parts_folder import IMAGES, mask_of, misplaced_masks, read_table, require_images


@dataclass(frozen=True)
class Findings:
    """What a folder holds.

    Attributes:
        names: classes and parts.
        images: {split: {class: images}}.
        unlabelled: images without a mask.
        empty: masks that are all background.
        shown: {(class, part): masks of that class's images that show the part}.
        problems: what must be mended before the folder can be used, in lines.
        notes: what a user should know, in lines.
    """

    names: PartNames
    images: Mapping[str, Mapping[str, int]]
    unlabelled: Sequence[Path]
    empty: Sequence[Path]
    shown: Mapping[tuple[str, str], int]
    problems: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True)
class _Looked:
    """What a look at an image showed: its size, the ids in its mask (None without a mask), or what is wrong."""

    size: tuple[int, int] | None = None
    ids: frozenset[int] | None = None
    problem: str | None = None


def check(root: Path) -> Findings:
    """Decode every image and mask of a folder that ``load_parts`` reads, and report all that are bad.

    Raises:
        UserError: if the folder's own shape is wrong: no ``parts.json``, no images, an empty class folder.
    """
    names = read_table(root)
    require_images(root)
    listed = {split: files_by_class(folder) for split, folder in split_folders(root / IMAGES).items()}
    count = max(number for parts in names.values() for number in parts.values())
    images = [(label, path) for files in listed.values() for label, paths in files.items() for path in paths]
    problems = list(_classes(root, names, listed))
    sizes: Counter[tuple[int, int]] = Counter()
    shown: Counter[tuple[str, str]] = Counter()
    unlabelled, empty, foreign = [], [], []
    owner: dict[Path, Path] = {}
    with ThreadPoolExecutor(WORKERS) as pool, progress.track("checking", len(images)) as bar:
        looks = pool.map(lambda image: _look(root, image[1], count), images)
        for (label, path), look in zip(images, looks, strict=True):
            bar.advance(1)
            mask = mask_of(root, path)
            if mask in owner:
                problems.append(f"{owner[mask]} and {path} share the mask {mask}: rename one of the images.")
            owner[mask] = path
            if look.problem is not None:
                problems.append(look.problem)
                continue
            assert look.size is not None
            sizes[look.size] += 1
            if look.ids is None:
                unlabelled.append(path)
                continue
            parts_shown = {
                part: number for part, number in names.get(label, {}).items() if number in look.ids
            }
            shown.update((label, part) for part in parts_shown)
            if not look.ids:
                empty.append(mask)
            elif not parts_shown and names.get(label):
                foreign.append(mask)
    if (misplaced := misplaced_masks(root, [path for _, path in images])) is not None:
        problems.append(misplaced)
    notes = [
        *_counted(unlabelled, "images have no mask: nobody annotated their parts"),
        *_counted(empty, "masks are all background"),
        *_counted(foreign, "masks show parts of other classes alone"),
        *(f"class {name} has no parts" for name, parts in names.items() if not parts),
        *(
            f"no image of {name} shows its part {part!r}"
            for name, parts in names.items()
            for part in parts
            if not shown[name, part]
        ),
    ]
    if len(sizes) > 1:
        notes.append(f"images have {len(sizes):,} sizes: --data.size PIXELS resizes and crops all of them")
    counted = {split: {name: len(paths) for name, paths in files.items()} for split, files in listed.items()}
    return Findings(names, counted, unlabelled, empty, shown, problems, notes)


def _look(root: Path, image: Path, count: int) -> _Looked:
    try:
        _, height, width = decode(image).shape
        mask = mask_of(root, image)
        if not mask.is_file():
            return _Looked(size=(height, width))
        shown = np.unique(decode_mask(mask, image, count=count).numpy())
        return _Looked(size=(height, width), ids=frozenset(shown.tolist()) - {0})
    except UserError as error:
        return _Looked(problem=str(error))


def _classes(root: Path, names: PartNames, listed: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for split, files in listed.items():
        for name in sorted(set(files) ^ set(names)):
            there, absent = ("parts.json", split) if name in names else (split, "parts.json")
            yield f"{root}: class {name!r} is in {there} and not in {absent}: every split needs all of them."


def _counted(paths: Sequence[Path], what: str) -> list[str]:
    return [f"{len(paths):,} {what}; the first is {paths[0]}"] if paths else []
