"""CIFAR-10 from its official files, which are pickles: read here without executing anything in them.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

import hashlib
import io
import logging
import pickle
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .. import distributed
from ..errors import UserError
from ..rundir import write_atomically
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered, provide

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILES = ("test_batch",)
ARCHIVE = "cifar-10-python.tar.gz"
_log = logging.getLogger(__name__)


def load_cifar10(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """The official training and test images; validation images are kept apart from the training images.

    Args:
        root: folder that holds ``cifar-10-batches-py``, or that folder itself.
        validation: share of the training images that is kept for validation.
        size: resize to this side in pixels; 32 by default.
        download: fetch the official archive into ``root`` where files are missing.

    Raises:
        UserError: if files are missing, damaged or not CIFAR-10. Files whose checksums differ from the
            official ones are accepted, with a warning in the log.
    """
    folder = cifar_folder(root)
    provide(folder, missing_files, fetch if download else None, _how_to_get(folder))

    sets: dict[str, tuple[Tensor, Tensor]] = {}
    changed: list[str] = []
    official = _official_checksums()
    for split, names in (("train", TRAIN_FILES), ("test", TEST_FILES)):
        read = []
        for name in names:
            content = (folder / name).read_bytes()
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != official[name]:
                changed.append(name)
            read.append(read_batch(content, folder / name))
        sets[split] = torch.cat([pixels for pixels, _ in read]), torch.cat([labels for _, labels in read])

    fingerprint = content_fingerprint([*sets["train"], *sets["test"]])
    if changed and distributed.is_main():
        _log.warning(
            "%s: %d of 6 files differ from the official checksums (%s): results do not compare with published "
            "ones. Fingerprint %s.", folder, len(changed), ", ".join(changed), fingerprint,
        )  # fmt: skip

    def as_set(split: str) -> ImageSet:
        pixels, labels = sets[split]
        pixels = pixels if size is None else resized(pixels, size)
        names = numbered(split, len(labels))
        index, shape = torch.arange(len(labels)), (3, pixels.shape[2], pixels.shape[3])
        return ImageSet("cifar10", split, CLASSES, labels, index, fingerprint, shape, pixels, names=names)

    train, held = hold_out(as_set("train"), validation, "validation")
    return Splits(train=train, validation=held, test=as_set("test"))


def missing_files(folder: Path) -> list[str]:
    """The batches that a folder lacks."""
    return [name for name in (*TRAIN_FILES, *TEST_FILES) if not (folder / name).is_file()]


def fetch(folder: Path) -> None:
    """Download the official archive beside ``folder`` and put the files that are missing there, each atomically.

    An archive that is there already is not fetched again.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_url

    try:
        download_url(CIFAR10.url, folder.parent, ARCHIVE, CIFAR10.tgz_md5)
        with tarfile.open(folder.parent / ARCHIVE) as archive:
            for name in _official_checksums():
                member = archive.extractfile(f"{FOLDER}/{name}")
                if member is not None and not (folder / name).is_file():
                    write_atomically(folder / name, partial(Path.write_bytes, data=member.read()))
    except (OSError, RuntimeError, KeyError, EOFError, tarfile.TarError) as error:
        raise UserError(
            f"Could not fetch CIFAR-10 from {CIFAR10.url}: {error}. "
            f"Put {ARCHIVE} into {folder.parent} by other means and run the same command again."
        ) from error


def read_batch(content: bytes, path: Path) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Images and labels of one batch file, checked.

    Raises:
        UserError: if the content is damaged, no CIFAR-10 batch, or asks for anything but arrays.
    """
    try:
        batch = _ArrayReader(io.BytesIO(content), path).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(
            f"{path} is damaged or cut off ({type(error).__name__}). Delete it. {_how_to_get(path.parent)}"
        ) from error
    if not isinstance(batch, dict):
        _refuse(path, f"it holds a {type(batch).__name__}")
    entries = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}
    for key in ("data", "labels"):
        if key not in entries:
            _refuse(path, f"it has no {key!r}")
    try:
        data, labels = _as_numpy(entries["data"]), _as_numpy(entries["labels"])
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        _refuse(path, str(error))
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or len(data) == 0:
        _refuse(path, f"its images are {data.dtype} of shape {data.shape} and not uint8 (n, 3072)")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(data):
        _refuse(path, f"it has {len(data)} images and labels of shape {labels.shape} and type {labels.dtype}")
    if labels.min() < 0 or labels.max() > 9:
        _refuse(path, f"its labels run from {labels.min()} to {labels.max()} and not within 0..9")
    pixels = torch.from_numpy(data.reshape(-1, 3, 32, 32).copy())
    return pixels, torch.from_numpy(labels.astype(np.int64))


class _Inert:
    """Stands in for numpy's arrays and types while a pickle is read: keeps what it is given, does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


def _from_buffer(content: bytes | bytearray, dtype: _Inert, shape: tuple[int, ...], order: str) -> _Inert:
    """Protocol 5 stores an array as a call of this."""
    array = _Inert()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: _Inert, content: bytes) -> int:
    return int(np.frombuffer(content, _dtype(dtype))[0])


def _encode(text: str, _encoding: str) -> bytes:
    """Protocol 2 stores bytes as text."""
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _Inert,
    ("numpy", "dtype"): _Inert,
    ("_codecs", "encode"): _encode,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Inert
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _ArrayReader(pickle.Unpickler):
    """Reads pickles of plain values and numpy arrays. Every other name is refused, and none is looked up."""

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file, encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """An inert stand-in for an admitted name."""
        if (module, name) not in _ADMITTED:
            raise UserError(
                f"{self.path} asks to run {module + '.' + name!r}, which no CIFAR-10 file does: refused, nothing was "
                f"run. Do not trust this file. {_how_to_get(self.path.parent)}"
            )
        return _ADMITTED[module, name]


def _as_numpy(value: object) -> NDArray[np.generic]:
    """An array from a stand-in, or from a list of numbers."""
    if not isinstance(value, _Inert):
        return np.asarray(value)
    _version, shape, dtype, columns_first, content = value.state
    array = np.frombuffer(content, _dtype(dtype)).reshape(shape, order="F" if columns_first else "C")
    return array.astype(array.dtype.newbyteorder("="))


def _dtype(stand_in: _Inert) -> np.dtype[np.generic]:
    """An integer type from its stand-in; Python 2 wrote its name and byte order as bytes."""
    written = (stand_in.arguments[0], stand_in.state[1])
    name, order = (part.decode() if isinstance(part, bytes) else part for part in written)
    if name[0] not in "iu" or order not in "<>|=":
        raise ValueError(f"it holds an array of type {order}{name}")
    return np.dtype(f"{order}{name}")


def _refuse(path: Path, reason: str) -> NoReturn:
    raise UserError(f"{path} is no CIFAR-10 batch: {reason}. {_how_to_get(path.parent)}")


def _how_to_get(folder: Path) -> str:
    return (
        f"Pass --data.download true to fetch it, or unpack the official {ARCHIVE} into {folder.parent}, "
        "which --data.root must name."
    )


def cifar_folder(root: Path | None) -> Path:
    """The folder of the batches, given the one around it or itself."""
    if root is None:
        raise UserError("Where does CIFAR-10 lie? Name the folder that holds it with --data.root DIR.")
    root = Path(root).expanduser()
    return root if root.name == FOLDER or (root / TRAIN_FILES[0]).is_file() else root / FOLDER


def _official_checksums() -> dict[str, str]:
    """MD5 of each official file."""
    from torchvision.datasets import CIFAR10

    listed = {name: md5 for name, md5 in CIFAR10.train_list + CIFAR10.test_list}
    return {**listed, CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}


def resized(pixels: Tensor, size: int) -> Tensor:
    """Bilinear, in pieces, so that the float copies stay small."""
    pieces = []
    for piece in torch.split(pixels, 1000):
        scaled = F.interpolate(piece.float(), (size, size), mode="bilinear", antialias=True)
        pieces.append(scaled.round().clamp(0, 255).byte())
    return torch.cat(pieces)
