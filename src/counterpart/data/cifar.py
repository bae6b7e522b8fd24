"""CIFAR-10 and CIFAR-100 from their official files, which are pickles: read here without executing anything in them.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

import hashlib
import io
import logging
import pickle
import pickletools
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .. import distributed
from ..errors import UserError, unreadable
from ..parsing.limits import read_bytes
from ..rundir import write_atomically
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered, provide

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILES = ("test_batch",)
ARCHIVE = "cifar-10-python.tar.gz"


@dataclass(frozen=True)
class PickledSet:
    """One of the two sets as it is published.

    Attributes:
        name: what it is called in settings.
        title: what it is called in sentences; without its hyphen, its class in torchvision.
        folder: of the files.
        archive: that holds the folder.
        files: split -> its files.
        labels: their entry that holds the labels.
        classes: their names, or None where they stand in the file "meta".
    """

    name: str
    title: str
    folder: str
    archive: str
    files: Mapping[str, tuple[str, ...]]
    labels: str
    classes: tuple[str, ...] | None = None

    @property
    def count(self) -> int:
        """How many classes."""
        return 100 if self.classes is None else len(self.classes)

    @property
    def needed(self) -> tuple[str, ...]:
        """The files without which the set cannot be read."""
        return (*chain(*self.files.values()), *(("meta",) if self.classes is None else ()))


CIFAR10 = PickledSet(
    "cifar10", "CIFAR-10", FOLDER, ARCHIVE, {"train": TRAIN_FILES, "test": TEST_FILES}, "labels", CLASSES
)
CIFAR100 = PickledSet(
    "cifar100", "CIFAR-100", "cifar-100-python", "cifar-100-python.tar.gz",
    {"train": ("train",), "test": ("test",)}, "fine_labels",
)  # fmt: skip
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
    return _load(CIFAR10, root, validation, size, download)


def load_cifar100(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """As ``load_cifar10``, from ``cifar-100-python``: the 100 fine classes, named as in its file ``meta``."""
    return _load(CIFAR100, root, validation, size, download)


def _load(
    official: PickledSet, root: Path | None, validation: float, size: int | None, download: bool
) -> Splits:
    folder = cifar_folder(root, official)
    provide(
        folder, partial(missing_files, official=official), partial(fetch, official=official) if download else None,
        _how_to_get(folder, official),
    )  # fmt: skip
    sets: dict[str, tuple[Tensor, Tensor]] = {}
    changed: list[str] = []
    checksums = _official_checksums(official)
    for split, names in official.files.items():
        read = []
        for name in names:
            content = _content(folder / name)
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != checksums[name]:
                changed.append(name)
            read.append(read_batch(content, folder / name, official))
        sets[split] = torch.cat([pixels for pixels, _ in read]), torch.cat([labels for _, labels in read])

    classes = official.classes or _class_names(folder / "meta", official)
    fingerprint = content_fingerprint([*sets["train"], *sets["test"]])
    if changed and distributed.is_main():
        _log.warning(
            "%s: %d of %d files differ from the official checksums (%s): results do not compare with published "
            "ones. Fingerprint %s.",
            folder, len(changed), sum(map(len, official.files.values())), ", ".join(changed), fingerprint,
        )  # fmt: skip

    def as_set(split: str) -> ImageSet:
        pixels, labels = sets[split]
        pixels = pixels if size is None else resized(pixels, size)
        names = numbered(split, len(labels))
        index, shape = torch.arange(len(labels)), (3, pixels.shape[2], pixels.shape[3])
        return ImageSet(official.name, split, classes, labels, index, fingerprint, shape, pixels, names=names)

    train, held = hold_out(as_set("train"), validation, "validation")
    return Splits(train=train, validation=held, test=as_set("test"))


def missing_files(folder: Path, official: PickledSet = CIFAR10) -> list[str]:
    """The official files that a folder lacks."""
    return [name for name in official.needed if not (folder / name).is_file()]


def fetch(folder: Path, official: PickledSet = CIFAR10) -> None:
    """Download the official archive beside ``folder`` and put the files that are missing there, each atomically.

    An archive that is there already is not fetched again.
    """
    from torchvision.datasets.utils import download_url

    source, archive_name = _torchvision(official), official.archive
    try:
        download_url(source.url, folder.parent, archive_name, source.tgz_md5)
        with tarfile.open(folder.parent / archive_name) as archive:
            for name in _official_checksums(official):
                member = archive.extractfile(f"{official.folder}/{name}")
                if member is not None and not (folder / name).is_file():
                    write_atomically(folder / name, partial(Path.write_bytes, data=member.read()))
    except (OSError, RuntimeError, KeyError, EOFError, tarfile.TarError) as error:
        raise UserError(
            f"Could not fetch {official.title} from {source.url}: {error}. "
            f"Put {archive_name} into {folder.parent} by other means and run the same command again."
        ) from error


def read_batch(
    content: bytes, path: Path, official: PickledSet = CIFAR10
) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, " n"]]:
    """Images and labels of one batch file, checked.

    Raises:
        UserError: if the content is damaged, no batch of the set, or asks for anything but arrays.
    """
    entries = _entries(content, path, official)
    for key in ("data", official.labels):
        if key not in entries:
            _refuse(path, f"it has no {key!r}", official)
    try:
        data, labels = _as_numpy(entries["data"]), _as_numpy(entries[official.labels])
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        _refuse(path, str(error), official)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or len(data) == 0:
        _refuse(path, f"its images are {data.dtype} of shape {data.shape} and not uint8 (n, 3072)", official)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(data):
        _refuse(
            path,
            f"it has {len(data)} images and labels of shape {labels.shape} and type {labels.dtype}",
            official,
        )
    if labels.min() < 0 or labels.max() >= official.count:
        _refuse(
            path,
            f"its labels run from {labels.min()} to {labels.max()} and not within 0..{official.count - 1}",
            official,
        )
    pixels = torch.from_numpy(data.reshape(-1, 3, 32, 32).copy())
    return pixels, torch.from_numpy(labels.astype(np.int64))


def _class_names(path: Path, official: PickledSet) -> tuple[str, ...]:
    """The names of the fine classes, from the file "meta"."""
    listed = _entries(_content(path), path, official).get("fine_label_names")
    names = [name.decode("latin1") if isinstance(name, bytes) else name for name in _as_list(listed)]
    if len(set(names)) != official.count or not all(isinstance(name, str) for name in names):
        _refuse(path, f"it does not name {official.count} classes", official)
    return tuple(names)


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _entries(content: bytes, path: Path, official: PickledSet) -> dict[object, Any]:
    """What a pickle of plain values and arrays holds, by name."""
    try:
        _check_memo(content)
        batch = _ArrayReader(io.BytesIO(content), path, official).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(
            f"{path} is damaged or cut off ({type(error).__name__}). Delete it. {_how_to_get(path.parent, official)}"
        ) from error
    if not isinstance(batch, dict):
        _refuse(path, f"it holds a {type(batch).__name__}", official)
    return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in batch.items()}


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, "UNPACKED")
    except ValueError as error:
        raise unreadable(path, error) from None


def _check_memo(content: bytes) -> None:
    """Refuse places of the memo that lie beyond what was put there: the reader makes room for all before them.

    Raises:
        ValueError: there is such a place, or something else than a pickle.
    """
    for count, (operation, place, _) in enumerate(pickletools.genops(content)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(place or 0) > count:
            raise ValueError(f"place {place} of its memo comes before {count + 1}")


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

    def __init__(self, file: io.BytesIO, path: Path, official: PickledSet) -> None:
        super().__init__(file, encoding="bytes")
        self.path, self.official = path, official

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """An inert stand-in for an admitted name."""
        if (module, name) not in _ADMITTED:
            raise UserError(
                f"{self.path} asks to run {module + '.' + name!r}, which no {self.official.title} file does: refused, "
                f"nothing was run. Do not trust this file. {_how_to_get(self.path.parent, self.official)}"
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


def _refuse(path: Path, reason: str, official: PickledSet) -> NoReturn:
    raise UserError(f"{path} is no {official.title} batch: {reason}. {_how_to_get(path.parent, official)}")


def _how_to_get(folder: Path, official: PickledSet) -> str:
    return (
        f"Pass --data.download true to fetch it, or unpack the official {official.archive} into {folder.parent}, "
        "which --data.root must name."
    )


def cifar_folder(root: Path | None, official: PickledSet = CIFAR10) -> Path:
    """The folder of the official files, given the one around it or itself."""
    if root is None:
        raise UserError(
            f"Where does {official.title} lie? Name the folder that holds it with --data.root DIR."
        )
    root = Path(root).expanduser()
    itself = root.name == official.folder or (root / official.files["train"][0]).is_file()
    return root if itself else root / official.folder


def cifar100_folder(root: Path | None) -> Path:
    """The folder of the official files of CIFAR-100."""
    return cifar_folder(root, CIFAR100)


def missing_cifar100_files(folder: Path) -> list[str]:
    """The official files of CIFAR-100 that a folder lacks."""
    return missing_files(folder, CIFAR100)


def official_md5(official: PickledSet, name: str) -> str:
    """The MD5 of an official file."""
    return _official_checksums(official)[name]


def _official_checksums(official: PickledSet) -> dict[str, str]:
    """MD5 of each official file."""
    source = _torchvision(official)
    listed = {name: md5 for name, md5 in source.train_list + source.test_list}
    return {**listed, source.meta["filename"]: source.meta["md5"]}


def _torchvision(official: PickledSet) -> Any:
    """torchvision's class of the set, which knows its address and checksums."""
    from torchvision import datasets

    return getattr(datasets, official.title.replace("-", ""))


def resized(pixels: Tensor, size: int) -> Tensor:
    """Bilinear, in pieces, so that the float copies stay small."""
    pieces = []
    for piece in torch.split(pixels, 1000):
        scaled = F.interpolate(piece.float(), (size, size), mode="bilinear", antialias=True)
        pieces.append(scaled.round().clamp(0, 255).byte())
    return torch.cat(pieces)
