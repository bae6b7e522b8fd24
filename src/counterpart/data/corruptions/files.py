"""The published corrupted test images of CIFAR-10-C and CIFAR-100-C, read where they lie.

A file per corruption holds 50,000 x 32 x 32 x 3 bytes: five blocks of 10,000 test images in their order, one block per
severity. ``labels.npy`` has a label for every row. Source: Hendrycks and Dietterich 2019.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ...errors import UserError
from ...parsing.limits import refuse_large
from . import CORRUPTIONS, SEVERITIES
from .checksums import MD5

BLOCK = 10_000  # images in the test set
ROWS = BLOCK * len(SEVERITIES)


@dataclass(frozen=True)
class CorruptedFiles:
    """A folder of official files.

    Attributes:
        folder: holds ``<corruption>.npy`` and ``labels.npy``.
        labels: (50000,) int64, the label of every row.
    """

    folder: Path
    labels: Int[Tensor, " n"]

    def has(self, name: str) -> bool:
        """Whether the folder has the file of a corruption."""
        return (self.folder / f"{name}.npy").is_file()

    def stamp(self, name: str) -> str:
        """A text that changes with the file of a corruption."""
        status = (self.folder / f"{name}.npy").stat()
        return f"{status.st_size} bytes of {status.st_mtime_ns}"

    def check_official(self, data: str, names: Iterable[str], severities: Iterable[int]) -> None:
        """Refuse files whose MD5 is not the official one. Whole files are read, whatever the severities.

        Args:
            data: "cifar10" or "cifar100".
            names: the corruptions that are needed.
            severities: those that are needed.
        """
        for name in ("labels", *names):
            path = self.folder / f"{name}.npy"
            if not path.is_file():
                raise UserError(f"{path} is missing. docs/datasets.md says where the official files are.")
            try:
                refuse_large(path, "UNPACKED")
            except ValueError as error:
                raise UserError(f"Cannot read {path}: {error}.") from None
            with path.open("rb") as file:
                md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if md5 != MD5[data][name]:
                raise UserError(
                    f"{path} is not the official file (its MD5 is {md5}, and that file's is {MD5[data][name]}): a "
                    "number on these images is none of the benchmark."
                )

    def read(self, name: str, severity: int, index: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 32 32"]:
        """Read corrupted test images by their index in the official test set. The file is mapped, not loaded.

        Raises:
            UserError: the file is missing or not what it should be, or an index is beyond the test set.
        """
        check_index(index)
        pixels = _open(self.folder / f"{name}.npy")
        if pixels.dtype != np.uint8 or pixels.shape != (ROWS, 32, 32, 3):
            raise UserError(
                f"{self.folder / f'{name}.npy'} is no official file: it holds {pixels.dtype} of shape {pixels.shape}, "
                f"and not uint8 of ({ROWS}, 32, 32, 3)."
            )
        rows = pixels[(severity - 1) * BLOCK + index.cpu().numpy()]
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))

    def check_labels(self, labels: Int[Tensor, " b"], index: Int[Tensor, " b"]) -> None:
        """Refuse files that belong to another test set.

        Args:
            labels: true classes of some test images.
            index: their index in the official test set.
        """
        check_index(index)
        different = int((self.labels.view(-1, BLOCK)[:, index.cpu()] != labels.cpu()).any(dim=0).sum())
        if different:
            raise UserError(
                f"{self.folder / 'labels.npy'} is of other images: {different} of {len(labels)} labels differ from "
                "those of the data set."
            )


def open_files(folder: Path) -> CorruptedFiles:
    """Open a folder of official files.

    Raises:
        UserError: there is no such folder, it holds no corruption, or its labels are missing or wrong.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder: name the one that holds the official .npy files, CIFAR-10-C."
        )
    if not any((folder / f"{name}.npy").is_file() for name in CORRUPTIONS):
        raise UserError(f"{folder} holds no file of a corruption, such as gaussian_noise.npy.")
    labels = _open(folder / "labels.npy")
    if labels.dtype.kind not in "iu" or labels.shape != (ROWS,):
        raise UserError(
            f"{folder / 'labels.npy'} is no official file: it holds {labels.dtype} of shape {labels.shape}, and not "
            f"{ROWS} whole numbers."
        )
    if labels.min() < 0 or labels.max() > 99:
        raise UserError(
            f"{folder / 'labels.npy'}: labels run from {labels.min()} to {labels.max()}, not within 0..99."
        )
    return CorruptedFiles(folder, torch.from_numpy(labels.astype(np.int64)))


def check_index(index: Int[Tensor, " b"]) -> None:
    """Refuse indices that the official test set does not have."""
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < BLOCK:
        raise UserError(
            f"the official files hold test images 0 to {BLOCK - 1}; asked for {int(index.max())}."
        )


# What numpy raises for a header that is no header of an array.
DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    MemoryError,
    RecursionError,
    OverflowError,
    TypeError,
    TokenError,
)


def _open(path: Path) -> NDArray[Any]:
    """Map an array in its file into memory. Pickled objects are refused."""
    try:
        refuse_large(path, "UNPACKED")
        opened = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing. docs/datasets.md says where the official files are.") from None
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is damaged or no .npy file: {reason}") from None
    if not isinstance(opened, np.ndarray):
        opened.close()
        raise UserError(f"{path} is an archive and no .npy file.")
    return opened
