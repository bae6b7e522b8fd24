"""Any folder of images, one folder per class, as torchvision's ImageFolder has it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from ..errors import UserError
from .cropping import Region
from .decoding import WORKERS, Prepare, common_size, decode_all
from .folder_layout import class_folders, files_by_class, split_layout, split_of
from .folds import photographs_of, split_by_fold
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out

TEST_SHARE = 0.2
IN_MEMORY_BYTES = 2**31  # of decoded images; larger sets are decoded on demand
HASHED_BYTES = 2**31  # on disk; of larger sets the fingerprint covers names and sizes only


def load_folder(
    root: Path | None = None,
    *,
    validation: float = 0.1,
    size: int | None = None,
    download: bool = False,
    prepare: Prepare | None = None,
    trained_on: str | None = None,
    channels: int = 3,
    fold: str | None = None,
    box_of: Callable[[Path], Region | None] | None = None,
) -> Splits:
    """Read images from ``root/{train,val,test}/CLASS/*``, or from ``root/CLASS/*`` where there are no split folders.

    Split folders may have any of the names of ``folder_layout.SPLIT_NAMES``, in any case.

    Without split folders 20 % become test images, or all where a model that never saw them is judged (``trained_on``).
    A missing validation split is drawn from train. Where test is missing, val is the test split (and validation is
    drawn from train). Where train is missing, the set can be evaluated but not trained on: train is empty, and
    validation as well unless it has a folder.

    With a ``fold`` the images of all split folders are pooled, and split by photograph (see ``folds``).

    A sample's index is its position among the sorted files of its folder, or of all folders with a ``fold``. The
    fingerprint is made of the relative paths and contents of the files, or of paths and sizes for sets over 2 GiB,
    and of the fold.

    Args:
        root: the folder.
        validation: share of the training images that is kept for validation if there is no folder for it.
        size: resize the shorter side to this many pixels and crop the centre; needed for mixed sizes.
        download: there is nothing to download; refused.
        prepare: makes ``size`` x ``size`` pixels of each image instead.
        trained_on: fingerprint of the data that the judged model was trained on, "" where it was on other data for
            certain; None for a set to be trained on, or judged as it was trained on.
        channels: 3, or 1 to read grey images as grey, and others by their luma.
        fold: "K/N" to judge on the K-th of N folds.
        box_of: the region of each file that is the image, before it is resized; None for the whole.

    Raises:
        UserError: if there are no images, a folder beside the splits is none, a class folder is empty, splits have
            different classes, images differ in size and ``size`` is not given, or an image is damaged.
    """
    if root is None:
        raise UserError("Where are the images? Name their folder with --data.root DIR.")
    if download:
        raise UserError("data.download: a folder of your own images cannot be downloaded. Leave it out.")
    if prepare is not None and channels != 3:
        raise UserError(
            f"data.channels {channels}: this model prepares images in colour. Leave data.channels out."
        )
    root = Path(root).expanduser()
    listed = _listed(root, fold is not None)
    every_file = [path for files in listed.values() for paths in files.values() for path in paths]
    height, width = common_size(every_file) if size is None else (size, size)
    classes = tuple(next(iter(listed.values())))
    samples = {
        split: [(path, k) for k, name in enumerate(files) for path in files[name]]
        for split, files in listed.items()
    }
    fingerprint = files_fingerprint(root, every_file)
    shape = (channels, height, width)
    if fold is not None:
        samples = {"test": [sample for of_split in samples.values() for sample in of_split]}
        pooled = set_of_files("folder", root, samples, classes, shape, fingerprint, prepare, box_of)["test"]
        photographs, told_by = photographs_of(root, every_file)
        return split_by_fold(pooled, photographs, fold, validation, told_by)
    sets = set_of_files("folder", root, samples, classes, shape, fingerprint, prepare, box_of)
    if set(sets) == {"train"} and trained_on not in (None, fingerprint):
        sets = {"test": replace(sets["train"], split="test")}
    return _splits(sets, validation)


def _listed(root: Path, pooled: bool) -> dict[str, dict[str, list[Path]]]:
    """The files of each class of each split, which all have the same classes."""
    listed = {split: files_by_class(folder) for split, folder in split_folders(root, pooled).items()}
    reference = next(iter(listed))
    for split, files in listed.items():
        if odd := sorted(set(files) ^ set(listed[reference])):
            there, absent = (split, reference) if odd[0] in files else (reference, split)
            raise UserError(
                f"{root}: class {odd[0]!r} has a folder in {there} and none in {absent}. "
                "Every split needs the same classes."
            )
    return listed


def set_of_files(
    name: str,
    root: Path,
    samples: Mapping[str, Sequence[tuple[Path, int]]],
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    fingerprint: str,
    prepare: Prepare | None = None,
    box_of: Callable[[Path], Region | None] | None = None,
) -> dict[str, ImageSet]:
    """Splits of image files: decoded now if all of them fit into ``IN_MEMORY_BYTES``, on demand otherwise.

    Args:
        name: of the data set.
        root: folder that the files lie in.
        samples: split -> each sample's file and class, in the order of their index.
        classes: name of each class.
        shape: (C, H, W) of every image.
        fingerprint: of the data set.
        prepare: makes pixels of an image, if not in the ordinary way.
        box_of: the region of each file that is the image, if not the whole.
    """
    pixels = sum(map(len, samples.values())) * shape[0] * shape[1] * shape[2]

    def as_set(split: str) -> ImageSet:
        paths = tuple(path for path, _ in samples[split])
        boxes = None
        if box_of is not None:
            with ThreadPoolExecutor(WORKERS) as pool:
                boxes = tuple(pool.map(box_of, paths))
        return ImageSet(
            name=name,
            split=split,
            classes=classes,
            labels=torch.tensor([label for _, label in samples[split]], dtype=torch.int64),
            index=torch.arange(len(paths)),
            fingerprint=fingerprint,
            shape=shape,
            pixels=decode_all(paths, shape, prepare, boxes) if pixels <= IN_MEMORY_BYTES else None,
            files=paths,
            prepare=prepare,
            boxes=boxes,
            names=tuple(path.relative_to(root).as_posix() for path in paths),
        )

    return {split: as_set(split) for split in samples}


def _splits(sets: dict[str, ImageSet], share: float) -> Splits:
    """Make three splits of those that are there."""
    if "test" not in sets and "validation" in sets:
        sets["test"] = replace(sets.pop("validation"), split="test")
    if "test" not in sets:
        sets["train"], sets["test"] = hold_out(sets["train"], TEST_SHARE, "test")
    nothing = sets["test"].subset(torch.arange(0))
    if "train" not in sets:
        sets["train"] = replace(nothing, split="train")
    elif "validation" not in sets:
        sets["train"], sets["validation"] = hold_out(sets["train"], share, "validation")
    held = sets.get("validation", replace(nothing, split="validation"))
    return Splits(train=sets["train"], validation=held, test=sets["test"])


def split_folders(root: Path, pooled: bool = False) -> dict[str, Path]:
    """The folder of each split; where there are no split folders, the root serves as train.

    Where splits are ``pooled``, a train split may stand alone.

    Raises:
        UserError: if the layout is none that can be read.
    """
    if not root.is_dir():
        raise UserError(
            f"{root} is {'no folder' if root.exists() else 'missing'}: --data.root must name a folder."
        )
    folders = split_layout(root)
    sets = (
        []
        if folders
        else [path for path in class_folders(root) if any(split_of(p.name) for p in class_folders(path))]
    )
    if sets and len(sets) == len(class_folders(root)):
        names = ", ".join(path.name for path in sets)
        raise UserError(
            f"{root} holds data sets with splits of their own ({names}): name one of them, --data.root {sets[0]}."
        )
    if set(folders) == {"train"} and not pooled:
        train = folders["train"].name
        raise UserError(
            f"{root} has {train} and no test: create {root / 'test'} with the same class folders "
            f"(or {root / 'val'}, which then serves as test), or point --data.root at {root / train} "
            f"to have {TEST_SHARE:.0%} of it drawn."
        )
    return folders or {"train": root}


def _has_splits(folder: Path) -> bool:
    return any(split_of(path.name) for path in class_folders(folder))


def files_fingerprint(root: Path, files: Sequence[Path]) -> str:
    """12 hex digits made of names and contents, or of names and sizes for files of over ``HASHED_BYTES`` together."""
    return content_fingerprint(_content(root, files))


def _content(root: Path, files: Sequence[Path]) -> Iterator[bytes]:
    sizes = [path.stat().st_size for path in files]
    hash_contents = sum(sizes) <= HASHED_BYTES
    for path, size in zip(files, sizes, strict=True):
        yield f"{path.relative_to(root).as_posix()}\n{size}\n".encode()
        if hash_contents:
            yield path.read_bytes()
