"""ImageNet (ILSVRC 2012) from folders of its official files; nothing is downloaded.

    DIR/train/n01440764/n01440764_10026.JPEG      DIR/val/n01440764/ILSVRC2012_val_00000293.JPEG
                                               or DIR/val/ILSVRC2012_val_00000293.JPEG and what says its class

The labels of the official test images are not public, so the official validation images are the test split here, as
in the literature, and validation images are held out of the training images.

Source: Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge".
"""

import csv
import io
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import distributed
from ..errors import UserError, unreadable
from ..parsing.limits import read_bytes, read_text
from .decoding import Prepare
from .folder import files_fingerprint, set_of_files
from .folder_layout import class_folders, files_by_class, image_files
from .image_sets import ImageSet, Splits, hold_out
from .mat_files import read_variables

CLASSES = 1000
DEFAULT_SIZE = 224
KAGGLE = Path("ILSVRC/Data/CLS-LOC")  # where Kaggle's archive has train and val
SOLUTION = "LOC_val_solution.csv"
KIT = Path("ILSVRC2012_devkit_t12/data")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
WNID = re.compile(r"n\d{8}")
VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")
_log = logging.getLogger(__name__)


def load_imagenet(
    root: Path | None = None,
    *,
    validation: float = 0.1,
    size: int | None = None,
    download: bool = False,
    prepare: Prepare | None = None,
) -> Splits:
    """Training images from ``train``, test images from ``val``; validation is kept apart from training.

    Classes are the WordNet ids in sorted order, which is the order of the outputs of every published network. The index
    of a sample is its position among the files of its split, sorted by class and name (or by name, in a flat folder).
    Without ``train`` the set can be judged on but not trained on.

    Args:
        root: folder that holds ``train`` and ``val``, or Kaggle's archive unpacked.
        validation: share of the training images that is kept for validation.
        size: the shorter side is resized to this many pixels and the centre square kept; 224 by default.
        download: there is nothing to download without an account; refused.
        prepare: makes ``size`` x ``size`` pixels of each image instead.

    Raises:
        UserError: if images are missing or damaged, folders are no WordNet ids, or ``val`` is flat and nothing says
            which class its images have. A set that has not 1,000 classes is accepted, with a warning in the log.
    """
    if root is None:
        raise UserError(
            "Where does ImageNet lie? Name the folder that holds its train and val with --data.root DIR."
        )
    if download:
        raise UserError(
            "data.download: ImageNet needs an account at image-net.org or Kaggle. Fetch it there and leave this out."
        )
    root = Path(root).expanduser()
    home = root / KAGGLE if (root / KAGGLE).is_dir() else root
    if not (home / "val").is_dir():
        raise UserError(f"{home / 'val'} is missing: expected {home / 'val' / 'n01440764' / 'IMAGE.JPEG'}.")
    by_class = {"train": _by_wnid(home / "train")} if (home / "train").is_dir() else {}
    if class_folders(home / "val"):
        labelled = _in_folders(_by_wnid(home / "val"))
        named = dict.fromkeys(wnid for _, wnid in labelled)
    else:
        wnid_of = _mapping(home / "val", root)
        labelled = _flat(home / "val", wnid_of)
        named = dict.fromkeys(wnid_of.values())
    wnids = sorted(by_class.get("train", named))
    number = {wnid: position for position, wnid in enumerate(wnids)}
    for path, wnid in labelled:
        if wnid not in number:
            raise UserError(f"{path} is of the class {wnid}, which {home / 'train'} does not have.")
    samples = {
        "train": [(path, number[wnid]) for path, wnid in _in_folders(by_class.get("train", {}))],
        "test": [(path, number[wnid]) for path, wnid in labelled],
    }
    side = size or DEFAULT_SIZE
    files = [path for of_split in samples.values() for path, _ in of_split]
    sets = set_of_files(
        "imagenet", home, samples, tuple(wnids), (3, side, side), files_fingerprint(home, files), prepare
    )
    if len(wnids) != CLASSES and distributed.is_main():
        _log.warning(
            "%s has %d classes, ImageNet %d: results do not compare with published ones. Fingerprint %s.",
            home, len(wnids), CLASSES, sets["test"].fingerprint,
        )  # fmt: skip
    train, held = _held_out(sets["train"], validation)
    return Splits(train=train, validation=held, test=sets["test"])


def imagenet_folder(root: Path) -> Path:
    """Where the files lie: in the root itself."""
    return root


def missing_files(root: Path) -> list[str]:
    """The files that a folder lacks to be judged on."""
    root = Path(root)
    home = root / KAGGLE if (root / KAGGLE).is_dir() else root
    return [] if (home / "val").is_dir() else ["val"]


def _held_out(train: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    if len(train) == 0:
        return train, replace(train, split="validation")
    return hold_out(train, share, "validation")


def _by_wnid(folder: Path) -> dict[str, list[Path]]:
    files = files_by_class(folder)
    for name in files:
        if not WNID.fullmatch(name):
            raise UserError(
                f"{folder / name} is no class of ImageNet: its folders are called by WordNet ids, such as n01440764. "
                "Other images in a folder per class are --data.name folder."
            )
    return files


def _in_folders(by_wnid: Mapping[str, list[Path]]) -> list[tuple[Path, str]]:
    return [(path, wnid) for wnid in sorted(by_wnid) for path in by_wnid[wnid]]


def _flat(folder: Path, wnid_of: Mapping[str, str]) -> list[tuple[Path, str]]:
    """List the files of a flat validation folder with the WordNet id of each."""
    files = image_files(folder)
    if not files:
        raise UserError(f"{folder} holds no images.")
    if unknown := [path for path in files if path.stem not in wnid_of]:
        raise UserError(
            f"{unknown[0]}: neither a folder nor {SOLUTION} or the development kit says its class."
        )
    return [(path, wnid_of[path.stem]) for path in files]


def _mapping(folder: Path, root: Path) -> dict[str, str]:
    """Map each image to its WordNet id, from what lies beside a flat validation folder.

    The official ids (ILSVRC2012_ID, 1 to 1000) of the development kit are no positions among sorted WordNet ids: only
    its meta.mat says which belongs to which.
    """
    for place in (root, folder.parent, folder):
        if (place / SOLUTION).is_file():
            return read_solution(place / SOLUTION)
        if (place / KIT).is_dir():
            return read_kit(place / KIT)
    raise UserError(
        f"{folder} has no folders of classes, and nothing says which class an image has. Put one of these into {root}: "
        f"Kaggle's {SOLUTION}; the development kit, unpacked ({KIT / TRUTH} and {META}); or move the images into "
        f"folders such as {folder / 'n01440764'}."
    )


def read_solution(path: Path) -> dict[str, str]:
    """Map each image to its WordNet id, from Kaggle's table: "ILSVRC2012_val_00048981,n03995372 85 1 499 272".

    Raises:
        UserError: if the file is no such table.
    """
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline="")))
    except (OSError, ValueError, csv.Error) as error:
        raise unreadable(path, error) from None
    wnid_of = {}
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and row[0] == "ImageId"):
            continue
        image, wnid = (*row, "", "")[0], (*row, "", "")[1].partition(" ")[0]
        if not (VALIDATION_IMAGE.fullmatch(image) and WNID.fullmatch(wnid)):
            raise UserError(
                f"{path}, line {number}: expected an image and its boxes, such as "
                "'ILSVRC2012_val_00048981,n03995372 85 1 499 272'."
            )
        wnid_of[image] = wnid
    return wnid_of


def read_kit(folder: Path) -> dict[str, str]:
    """Map each image to its WordNet id, from the development kit's list of official ids and its table of classes.

    Raises:
        UserError: if a file is missing or damaged, or the list names an id that is no class.
    """
    for name in (TRUTH, META):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: unpack the development kit again.")
    wnid_of_id = read_meta(folder / META)
    wnid_of = {}
    try:
        lines = read_bytes(folder / TRUTH, "TEXT").decode("utf-8-sig", errors="replace").split()
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {folder / TRUTH}: {error}.") from None
    for number, line in enumerate(lines, start=1):
        if not re.fullmatch(r"[0-9]{1,9}", line) or int(line) not in wnid_of_id:
            raise UserError(
                f"{folder / TRUTH}, line {number}: {line[:20]!r} is no id of a class in {META} "
                f"(1 to {len(wnid_of_id)})."
            )
        wnid_of[f"ILSVRC2012_val_{number:08d}"] = wnid_of_id[int(line)]
    return wnid_of


def read_meta(path: Path) -> dict[int, str]:
    """Map official ids to WordNet ids, from ``meta.mat``, for the classes that have images (the leaves).

    Raises:
        UserError: if the file is damaged or no such table.
    """
    try:
        rows = read_variables(read_bytes(path, "UNPACKED"))["synsets"]
        leaves = [row for row in rows if int(row["num_children"].item()) == 0]
        table = {int(row["ILSVRC2012_ID"].item()): row["WNID"] for row in leaves}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # What a limit or the reader of the format says names what to do.
        reason = error if isinstance(error, ValueError) else type(error).__name__
        raise UserError(
            f"{path} is damaged or no table of ImageNet's classes ({reason}). Unpack the "
            "development kit again."
        ) from error
    wnids: list[Any] = list(table.values())
    if not wnids or any(not isinstance(wnid, str) or not WNID.fullmatch(wnid) for wnid in wnids):
        raise UserError(f"{path} holds no WordNet ids. Unpack the development kit again.")
    if len(set(wnids)) < len(leaves):
        raise UserError(f"{path} has an id or a class twice. Unpack the development kit again.")
    return table
