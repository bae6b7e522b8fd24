"""Look through a folder of images with part masks: what is there, and everything that is wrong with it, by file."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import progress
from ..errors import UserError
from ..records import file_hash
from .contact_sheet import Example, choose
from .decoding import WORKERS, decode
from .folder import split_folders
from .folder_layout import files_by_class
from .parts import PartNames, decode_mask
from .parts_folder import IMAGES, mask_of, misplaced_masks, read_table, require_images
from .staging import MANIFEST, read_lines


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
        examples: of each class some images with masks that can be read, for a contact sheet.
    """

    names: PartNames
    images: Mapping[str, Mapping[str, int]]
    unlabelled: Sequence[Path]
    empty: Sequence[Path]
    shown: Mapping[tuple[str, str], int]
    problems: Sequence[str]
    notes: Sequence[str]
    examples: Mapping[str, Sequence[Example]]


@dataclass(frozen=True)
class _Looked:
    """One image, and what was seen.

    Attributes:
        label: its class.
        image: its file.
        mask: the file of its mask, which need not be there.
        size: height and width.
        ids: what its mask shows beside the background; None without one.
        covered: the share of its mask that is parts.
        problem: what is wrong; then nothing else was seen.
    """

    label: str
    image: Path
    mask: Path
    size: tuple[int, int] = (0, 0)
    ids: frozenset[int] | None = None
    covered: float = 0.0
    problem: str | None = None
    changed: tuple[str, ...] = ()

    def parts_of_class(self, names: PartNames) -> list[str]:
        """Which parts of the image's own class the mask shows."""
        return [part for part, number in names.get(self.label, {}).items() if number in (self.ids or ())]


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
    hashes, looks = _hashes(root), list[_Looked]()
    with ThreadPoolExecutor(WORKERS) as pool, progress.track("checking", len(images)) as bar:
        for look in pool.map(lambda image: _look(root, image, count, hashes), images):
            bar.advance(1)
            looks.append(look)
    problems = [*_classes(root, names, listed), *_problems(looks)]
    problems += [words for look in looks for words in look.changed]
    if (misplaced := misplaced_masks(root, [path for _, path in images])) is not None:
        problems.append(misplaced)
    sound = [look for look in looks if look.problem is None]
    annotated = [look for look in sound if look.ids is not None]
    unlabelled = [look.image for look in sound if look.ids is None]
    empty = [look.mask for look in annotated if not look.ids]
    images_by_part = Counter((look.label, part) for look in annotated for part in look.parts_of_class(names))
    notes = [
        *_counted(unlabelled, "images have no mask: nobody annotated their parts"),
        *_counted(empty, "masks are all background"),
        *_counted(_foreign(annotated, names), "masks show parts of other classes alone"),
        *_unseen(names, images_by_part),
    ]
    if len(sizes := {look.size for look in sound}) > 1:
        notes.append(f"images have {len(sizes):,} sizes: --data.size PIXELS resizes and crops all of them")
    counted = {split: {name: len(paths) for name, paths in files.items()} for split, files in listed.items()}
    examples = _examples(root, annotated, names)
    return Findings(names, counted, unlabelled, empty, images_by_part, problems, notes, examples)


def _examples(root: Path, annotated: Sequence[_Looked], names: PartNames) -> dict[str, list[Example]]:
    """Of each class the images that together show most of its parts."""
    examples = {}
    for name in names:
        looks = [look for look in annotated if look.label == name and look.ids]
        chosen = choose([look.ids or frozenset() for look in looks], [look.covered for look in looks])
        if chosen:
            examples[name] = [
                Example(looks[k].image, looks[k].mask, looks[k].image.relative_to(root / IMAGES).as_posix())
                for k in chosen
            ]
    return examples


def _look(root: Path, labelled: tuple[str, Path], count: int, hashes: Mapping[str, object]) -> _Looked:
    """What an image and its mask show, and whether they are those that were prepared."""
    label, image = labelled
    mask = mask_of(root, image)
    changed = tuple(_changed(root, (image, mask), hashes))
    return replace(_decoded(label, image, mask, count), changed=changed)


def _decoded(label: str, image: Path, mask: Path, count: int) -> _Looked:
    try:
        _, height, width = decode(image).shape
        if not mask.is_file():
            return _Looked(label, image, mask, (height, width))
        ids = decode_mask(mask, image, count=count).numpy()
        part_ids = frozenset(np.unique(ids).tolist()) - {0}
        return _Looked(label, image, mask, (height, width), part_ids, float((ids > 0).mean()))
    except UserError as error:
        return _Looked(label, image, mask, problem=str(error))


def _problems(looks: Sequence[_Looked]) -> Iterator[str]:
    """What is wrong with images and masks, in their order."""
    owner: dict[Path, Path] = {}
    for look in looks:
        if look.mask in owner:
            yield f"{owner[look.mask]} and {look.image} share the mask {look.mask}: rename one of the images."
        owner[look.mask] = look.image
        if look.problem is not None:
            yield look.problem


def _hashes(root: Path) -> dict[str, object]:
    """The hashes of images and masks as they were prepared; none without a manifest."""
    hashes: dict[str, object] = {}
    for row in read_lines(root / MANIFEST) if (root / MANIFEST).is_file() else ():
        hashes[str(row.get("path"))] = row.get("sha256")
        hashes[str(row.get("mask"))] = row.get("mask_sha256")
    return hashes


def _changed(root: Path, files: Sequence[Path], hashes: Mapping[str, object]) -> Iterator[str]:
    """Those of some files that are others than when they were prepared."""
    for file in files:
        known = hashes.get(file.relative_to(root).as_posix())
        if known is not None and file.is_file() and file_hash(file) != known:
            yield f"{file} has changed since it was prepared (its hash is not that of {MANIFEST})."


def _foreign(annotated: Sequence[_Looked], names: PartNames) -> list[Path]:
    """Masks that show parts, but none of their image's class, though it has some."""
    return [
        look.mask
        for look in annotated
        if look.ids and names.get(look.label) and not look.parts_of_class(names)
    ]


def _unseen(names: PartNames, images_by_part: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """Classes without parts, and parts that no image of their class shows."""
    for name, parts in names.items():
        if not parts:
            yield f"class {name} has no parts"
    for name, parts in names.items():
        for part in parts:
            if (name, part) not in images_by_part:
                yield f"no image of {name} shows its part {part!r}"


def _classes(root: Path, names: PartNames, listed: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for split, files in listed.items():
        for name in sorted(set(files) ^ set(names)):
            there, absent = ("parts.json", split) if name in names else (split, "parts.json")
            yield f"{root}: class {name!r} is in {there} and not in {absent}: every split needs all of them."


def _counted(paths: Sequence[Path], what: str) -> list[str]:
    return [f"{len(paths):,} {what}; the first is {paths[0]}"] if paths else []
