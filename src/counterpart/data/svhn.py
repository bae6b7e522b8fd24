"""SVHN from its official files: street-view house numbers, cropped to one digit.

Source: Netzer et al. 2011, "Reading digits in natural images with unsupervised feature learning".
"""

import hashlib
import logging
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from .. import distributed
from ..errors import UserError
from ..parsing.limits import read_bytes
from .cifar import resized
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered, provide
from .mat_files import read_variables

CLASSES = tuple("0123456789")
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
_log = logging.getLogger(__name__)


def svhn_folder(root: Path) -> Path:
    """Where the files lie: in the root itself."""
    return root


def load_svhn(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """The official training and test images, without the extra ones; validation is kept apart from training.

    Args:
        root: folder that holds ``train_32x32.mat`` and ``test_32x32.mat``.
        validation: share of the training images that is kept for validation.
        size: resize to this side in pixels; 32 by default.
        download: fetch the official files into ``root`` where they are missing.

    Raises:
        UserError: if files are missing, damaged or not SVHN. Files whose checksums differ from the official
            ones are accepted, with a warning in the log.
    """
    if root is None:
        raise UserError("Where does SVHN lie? Name the folder that holds it with --data.root DIR.")
    folder = Path(root).expanduser()
    provide(folder, missing_files, fetch if download else None, _how_to_get(folder))

    sets, changed = {}, []
    for split, name in FILES.items():
        try:
            content = read_bytes(folder / name, "UNPACKED")
        except ValueError as error:
            raise UserError(f"Cannot read {folder / name}: {error}.") from None
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != _official(split)[2]:
            changed.append(name)
        sets[split] = read_mat(content, folder / name)
    fingerprint = content_fingerprint([*sets["train"], *sets["test"]])
    if changed and distributed.is_main():
        _log.warning(
            "%s: %s differ from the official checksums: results do not compare with published ones. Fingerprint %s.",
            folder, ", ".join(changed), fingerprint,
        )  # fmt: skip

    def as_set(split: str) -> ImageSet:
        pixels, labels = sets[split]
        pixels = pixels if size is None else resized(pixels, size)
        names = numbered(split, len(labels))
        index, shape = torch.arange(len(labels)), (3, pixels.shape[2], pixels.shape[3])
        return ImageSet("svhn", split, CLASSES, labels, index, fingerprint, shape, pixels, names=names)

    train, held = hold_out(as_set("train"), validation, "validation")
    return Splits(train=train, validation=held, test=as_set("test"))


def missing_files(folder: Path) -> list[str]:
    """The official files that a folder lacks."""
    return [name for name in FILES.values() if not (folder / name).is_file()]


def fetch(folder: Path) -> None:
    """Download the official files that are missing; their checksums are checked."""
    from torchvision.datasets.utils import download_url

    for split in FILES:
        url, name, md5 = _official(split)
        if (folder / name).is_file():
            continue
        try:
            download_url(url, folder, name, md5)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"Could not fetch SVHN from {url}: {error}. "
                f"Put {name} into {folder} by other means and run the same command again."
            ) from error


def read_mat(content: bytes, path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Read and check the images and labels of a file. The files' label 10 means the digit 0.

    Raises:
        UserError: if the content is damaged or no SVHN file.
    """
    try:
        entries = read_variables(content)
    except ValueError as error:
        raise UserError(
            f"{path} is damaged or cut off: {error}. Delete it. {_how_to_get(path.parent)}"
        ) from error
    for key in ("X", "y"):
        if not isinstance(entries.get(key), np.ndarray):
            _refuse(path, f"it has no array {key!r}")
    images, labels = entries["X"], entries["y"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3) or not images.size:
        _refuse(path, f"its images are {images.dtype} of shape {images.shape} and not uint8 (32, 32, 3, n)")
    if labels.dtype.kind not in "iuf" or labels.shape != (images.shape[3], 1):
        _refuse(
            path,
            f"it has {images.shape[3]} images and labels of shape {labels.shape} and type {labels.dtype}",
        )
    if not np.isin(labels, np.arange(1, 11)).all():
        _refuse(path, "its labels are not all whole numbers within 1..10")
    pixels = torch.from_numpy(images.transpose(3, 2, 0, 1).copy())
    return pixels, torch.from_numpy(labels[:, 0].astype(np.int64) % 10)


def _official(split: str) -> tuple[str, str, str]:
    """The address, the name and the MD5 of an official file."""
    from torchvision.datasets import SVHN

    url, name, md5 = SVHN.split_list[split]
    return url, name, md5


def _refuse(path: Path, reason: str) -> NoReturn:
    raise UserError(f"{path} is no SVHN file: {reason}. {_how_to_get(path.parent)}")


def _how_to_get(folder: Path) -> str:
    return (
        f"Pass --data.download true to fetch it, or put the official {' and '.join(FILES.values())} into {folder}, "
        "which --data.root must name."
    )
