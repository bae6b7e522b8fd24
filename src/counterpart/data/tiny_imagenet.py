"""Tiny-ImageNet-200 from its official files: 64 x 64 images of 200 ImageNet classes, 500 a class for training.

The labels of the official test images are not public, so the official validation images are the test split here, as
in the literature, and validation images are held out of the training images.

Source: Wu 2017, "Tiny ImageNet challenge" (Stanford CS231n).
"""

import logging
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

from .. import distributed
from ..errors import UserError
from ..parsing.limits import read_text
from .decoding import common_size
from .folder import files_fingerprint, set_of_files
from .folder_layout import image_files
from .image_sets import Splits, hold_out, provide

FOLDER = "tiny-imagenet-200"
WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
OFFICIAL = {"classes": 200, "training images": 100_000, "test images": 10_000}
ARCHIVE = "tiny-imagenet-200.zip"
URL = f"http://cs231n.stanford.edu/{ARCHIVE}"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"  # the MD5 of the archive; no checksums of its files are published
_log = logging.getLogger(__name__)


def load_tiny_imagenet(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """Training images from ``train``, test images from ``val``; validation is kept apart from training.

    Classes are those of ``wnids.txt``, in the order of their WordNet ids (as torchvision's ImageFolder has them, so
    that weights of others fit), each named by the first of its words in ``words.txt``. A training image's index is
    its position among the files sorted by class and name; a test image's its line in ``val_annotations.txt``.

    Args:
        root: folder that holds ``tiny-imagenet-200``, or that folder itself.
        validation: share of the training images that is kept for validation.
        size: resize to this side in pixels; 64 by default.
        download: fetch the official archive and unpack it into ``root`` if it is not there.

    Raises:
        UserError: if files are missing or damaged, or contradict each other. A set that is not as large as the
            official one is accepted, with a warning in the log.
    """
    folder = tiny_folder(root)
    provide(folder, missing_files, fetch if download else None, _how_to_get(folder))

    wnids = sorted(_lines(folder / WNIDS))
    if twice := [wnid for wnid, count in Counter(wnids).items() if count > 1]:
        raise UserError(f"{folder / WNIDS} lists the class {twice[0]} twice.")
    if not wnids:
        raise UserError(f"{folder / WNIDS} lists no class. {_how_to_get(folder)}")
    classes = _names(folder / WORDS, wnids)
    listed = {
        "train": [(path, k) for k, wnid in enumerate(wnids) for path in _training_images(folder, wnid)],
        "test": _annotated(folder, wnids),
    }
    every_file = [path for samples in listed.values() for path, _ in samples]
    height, width = common_size(every_file) if size is None else (size, size)
    sets = set_of_files(
        "tiny-imagenet", folder, listed, classes, (3, height, width),
        files_fingerprint(folder, [*every_file, folder / ANNOTATIONS]),
    )  # fmt: skip
    counts = dict(zip(OFFICIAL, (len(classes), len(sets["train"]), len(sets["test"])), strict=True))
    if counts != OFFICIAL and distributed.is_main():
        _log.warning(
            "%s has %s, the official set %s: results do not compare with published ones. Fingerprint %s.",
            folder, _counts(counts), _counts(OFFICIAL), sets["train"].fingerprint,
        )  # fmt: skip
    train, held = hold_out(sets["train"], validation, "validation")
    return Splits(train=train, validation=held, test=sets["test"])


def tiny_folder(root: Path | None) -> Path:
    """The folder of the official files, given the one around it or itself."""
    if root is None:
        raise UserError("Where does Tiny-ImageNet lie? Name the folder that holds it with --data.root DIR.")
    root = Path(root).expanduser()
    return root if root.name == FOLDER or (root / WNIDS).is_file() else root / FOLDER


def missing_files(folder: Path) -> list[str]:
    """The files of the official layout that a folder lacks, whatever its classes."""
    files = [name for name in (WNIDS, WORDS, ANNOTATIONS) if not (folder / name).is_file()]
    return files + [name for name in ("train", "val/images") if not (folder / name).is_dir()]


def fetch(folder: Path) -> None:
    """Download the official archive beside ``folder`` and unpack it there, without the images that have no labels.

    An archive that is there already is not fetched again. What was unpacked takes its name when it is complete.
    """
    from torchvision.datasets.utils import download_url

    if folder.exists():
        missing = missing_files(folder)[0]
        raise UserError(f"{folder} is there and lacks {missing}: remove or complete it, then download again.")
    unpacked = folder.with_name(f".{FOLDER}.unpacking")
    try:
        download_url(URL, folder.parent, ARCHIVE, MD5)
        shutil.rmtree(unpacked, ignore_errors=True)  # of a download that was killed
        with zipfile.ZipFile(folder.parent / ARCHIVE) as archive:
            labelled = [name for name in archive.namelist() if not name.startswith(f"{FOLDER}/test/")]
            archive.extractall(unpacked, labelled)
        os.sync()  # its name says that it is complete, also after a loss of power
        (unpacked / FOLDER).rename(folder)
        unpacked.rmdir()
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"Could not fetch Tiny-ImageNet from {URL}: {error}. "
            f"Put {ARCHIVE} into {folder.parent} by other means and run the same command again."
        ) from error


def _training_images(folder: Path, wnid: str) -> list[Path]:
    images = folder / "train" / wnid / "images"
    if not images.is_dir():
        raise UserError(f"{images} is missing: {folder / WNIDS} lists the class {wnid}.")
    files = image_files(images)
    if not files:
        raise UserError(f"{images} holds no images: fill it, or take {wnid} out of {folder / WNIDS}.")
    return files


def _annotated(folder: Path, wnids: list[str]) -> list[tuple[Path, int]]:
    """List the images and classes of the annotations, in their order: every image in ``val/images`` once."""
    path, there = folder / ANNOTATIONS, {file.name: file for file in image_files(folder / "val" / "images")}
    known, samples = {wnid: k for k, wnid in enumerate(wnids)}, []
    for number, line in enumerate(_lines(path), start=1):
        name, wnid = (*line.split("\t"), "")[:2]
        if wnid not in known:
            raise UserError(
                f"{path}, line {number}: {name!r} has the class {wnid!r}, which {WNIDS} does not list. "
                "A line is: image, tab, class."
            )
        if name not in there:
            raise UserError(
                f"{path}, line {number}: {name!r} is not in {folder / 'val' / 'images'}, or an earlier line names it."
            )
        samples.append((there.pop(name), known[wnid]))
    if there:
        raise UserError(f"{next(iter(there.values()))} has no line in {path}: add or remove it.")
    if not samples:
        raise UserError(f"{path} names no images. {_how_to_get(folder)}")
    return samples


def _names(path: Path, wnids: list[str]) -> tuple[str, ...]:
    """A readable name for each class; where first words are equal, the id is added."""
    words = dict(line.partition("\t")[::2] for line in _lines(path))
    for wnid in wnids:
        if not words.get(wnid):
            raise UserError(f"{path} has no words for the class {wnid}, which {WNIDS} lists.")
    first = [words[wnid].split(",")[0].strip() for wnid in wnids]
    return tuple(
        name if first.count(name) == 1 else f"{name} ({wnid})"
        for name, wnid in zip(first, wnids, strict=True)
    )


def _lines(path: Path) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. {_how_to_get(path.parent)}") from None
    return [line.strip() for line in lines if line.strip()]


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in numbers.items())


def _how_to_get(folder: Path) -> str:
    return (
        f"Pass --data.download true to fetch it, or unpack the official {ARCHIVE} into {folder.parent}, which "
        "--data.root must name; images that were rearranged into a folder per class are --data.name folder."
    )
