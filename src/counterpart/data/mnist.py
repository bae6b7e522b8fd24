"""MNIST and Fashion-MNIST from their official files: 28 x 28 grey images of ten classes.

Sources: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition"; Xiao, Rasul
and Vollgraf 2017, "Fashion-MNIST", arXiv 1708.07747.
"""

import gzip
import hashlib
import io
import logging
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from .. import distributed
from ..errors import UserError
from ..parsing.limits import read_bytes
from .cifar import resized
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered, provide

SIDE, CLASSES = 28, 10
IMAGES, LABELS = 0x803, 0x801  # how their files begin: unsigned bytes in three dimensions, or in one
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MOST_BYTES = 2**27  # unpacked; the official files take 47 MB at most
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdxSet:
    """One of the two sets as it is published.

    Attributes:
        name: what it is called in settings.
        title: what it is called in sentences; without its hyphen, its class in torchvision.
        classes: their names.
    """

    name: str
    title: str
    classes: tuple[str, ...]


MNIST = IdxSet("mnist", "MNIST", tuple("0123456789"))
FASHION_MNIST = IdxSet(
    "fashion-mnist", "Fashion-MNIST",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)  # fmt: skip


def load_mnist(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """The official training and test images; validation images are kept apart from the training images.

    Args:
        root: folder of the official files (``train-images-idx3-ubyte.gz``, ...), packed or unpacked, or the folder in
            which torchvision has put them into ``MNIST/raw``.
        validation: share of the training images that is kept for validation.
        size: resize to this side in pixels; 28 by default.
        download: fetch the official files into ``root`` where they are missing.

    Raises:
        UserError: if files are missing, damaged or not MNIST. Packed files whose checksums differ from the official
            ones are accepted, with a warning in the log; for unpacked ones no checksums are published.
    """
    return _load(MNIST, root, validation, size, download)


def load_fashion_mnist(
    root: Path | None = None, *, validation: float = 0.1, size: int | None = None, download: bool = False
) -> Splits:
    """As ``load_mnist``; torchvision's folder is ``FashionMNIST/raw``."""
    return _load(FASHION_MNIST, root, validation, size, download)


def _load(official: IdxSet, root: Path | None, validation: float, size: int | None, download: bool) -> Splits:
    folder = mnist_folder(root, official)
    how = _how_to_get(folder, official)
    provide(folder, missing_files, partial(fetch, official=official) if download else None, how)
    checksums = dict(_torchvision(official).resources)
    sets, changed = {}, []
    for split, names in FILES.items():
        files = [_file(folder, name) for name in names]
        contents = [_content(path, official) for path in files]
        for path, content in zip(files, contents, strict=True):
            digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if path.suffix == ".gz" and checksums[path.name] != digest:
                changed.append(path.name)
        sets[split] = _read(files, contents, official)
    fingerprint = content_fingerprint([*sets["train"], *sets["test"]])
    if changed and distributed.is_main():
        _log.warning(
            "%s: %s differ from the official checksums: results do not compare with published ones. Fingerprint %s.",
            folder, ", ".join(changed), fingerprint,
        )  # fmt: skip

    def as_set(split: str) -> ImageSet:
        pixels, labels = sets[split]
        pixels = pixels if size is None else resized(pixels, size)
        index, shape = torch.arange(len(labels)), (1, pixels.shape[2], pixels.shape[3])
        names = numbered(split, len(labels))
        return ImageSet(
            official.name, split, official.classes, labels, index, fingerprint, shape, pixels, names=names
        )

    train, held = hold_out(as_set("train"), validation, "validation")
    return Splits(train=train, validation=held, test=as_set("test"))


def mnist_folder(root: Path | None, official: IdxSet = MNIST) -> Path:
    """The folder of the official files, given itself or torchvision's around it."""
    if root is None:
        raise UserError(
            f"Where does {official.title} lie? Name the folder that holds it with --data.root DIR."
        )
    root = Path(root).expanduser()
    of_torchvision = root / official.title.replace("-", "") / "raw"
    return of_torchvision if of_torchvision.is_dir() and missing_files(root) else root


def fashion_mnist_folder(root: Path | None) -> Path:
    """The folder of the official files of Fashion-MNIST."""
    return mnist_folder(root, FASHION_MNIST)


def missing_files(folder: Path) -> list[str]:
    """The official files that a folder has neither packed nor unpacked."""
    return [f"{name}.gz" for names in FILES.values() for name in names if not _file(folder, name).is_file()]


def fetch(folder: Path, official: IdxSet = MNIST) -> None:
    """Download the official files that are missing, from the first mirror that answers; checksums are checked."""
    from torchvision.datasets.utils import download_url

    source = _torchvision(official)
    for name, md5 in source.resources:
        if _file(folder, name.removesuffix(".gz")).is_file():
            continue
        problem: Exception | None = None
        for mirror in source.mirrors:
            try:
                download_url(f"{mirror}{name}", folder, name, md5)
            except (OSError, RuntimeError) as error:
                problem = error
            else:
                break
        else:
            raise UserError(
                f"Could not fetch {official.title} from {', '.join(source.mirrors)}: {problem}. "
                f"Put {name} into {folder} by other means and run the same command again."
            ) from problem


def read_idx(content: bytes, path: Path, official: IdxSet = MNIST) -> UInt8[np.ndarray, "..."]:
    """The array of one file, packed or not: (n, 28, 28) images or (n,) labels.

    Raises:
        UserError: if the content is damaged or no file of the set.
    """
    if path.suffix == ".gz":
        content = _unpacked(content, path, official)
    words = np.frombuffer(content[: 4 * (len(content[:16]) // 4)], ">u4").tolist()
    dimensions = {IMAGES: 3, LABELS: 1}.get(words[0] if words else 0)
    if dimensions is None or len(words) <= dimensions:
        _refuse(path, "it does not begin as an idx file of bytes does", official)
    shape = words[1 : 1 + dimensions]
    values = np.frombuffer(content, np.uint8, offset=4 * (1 + dimensions))
    if shape[1:] not in ([], [SIDE, SIDE]) or shape[0] < 1:
        _refuse(path, f"it states the shape {tuple(shape)}", official)
    if len(values) != int(np.prod(shape, dtype=object)):
        _refuse(path, f"it states the shape {tuple(shape)} and holds {len(values):,} bytes", official)
    return values.reshape(shape)


def _content(path: Path, official: IdxSet) -> bytes:
    try:
        return read_bytes(path, "UNPACKED")
    except ValueError as error:
        _refuse(path, str(error), official)


def _unpacked(content: bytes, path: Path, official: IdxSet) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            plain = file.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged or cut off ({error}). Delete it. {_how_to_get(path.parent, official)}"
        ) from error
    if len(plain) > MOST_BYTES:
        _refuse(path, f"it unpacks to more than {MOST_BYTES:,} bytes", official)
    return plain


def _read(
    files: list[Path], contents: list[bytes], official: IdxSet
) -> tuple[UInt8[Tensor, "n 1 28 28"], Int[Tensor, " n"]]:
    """Images and labels of one split."""
    images, labels = (
        read_idx(content, path, official) for path, content in zip(files, contents, strict=True)
    )
    if images.ndim != 3:
        _refuse(files[0], "it holds labels", official)
    if labels.ndim != 1 or len(labels) != len(images):
        _refuse(files[1], f"{len(images)} images have labels of shape {labels.shape}", official)
    if labels.max() >= CLASSES:
        _refuse(files[1], f"its labels run to {labels.max()} and not within 0..{CLASSES - 1}", official)
    return torch.from_numpy(images[:, None].copy()), torch.from_numpy(labels.astype(np.int64))


def _file(folder: Path, name: str) -> Path:
    """A file as it is published, or unpacked where only that is there."""
    packed = folder / f"{name}.gz"
    return packed if packed.is_file() else folder / name


def _torchvision(official: IdxSet) -> Any:
    """torchvision's class of the set, which knows its addresses and checksums."""
    from torchvision import datasets

    return getattr(datasets, official.title.replace("-", ""))


def _refuse(path: Path, reason: str, official: IdxSet) -> NoReturn:
    raise UserError(f"{path} is no {official.title} file: {reason}. {_how_to_get(path.parent, official)}")


def _how_to_get(folder: Path, official: IdxSet) -> str:
    return (
        f"Pass --data.download true to fetch it, or put the four official files of {official.title} into {folder}, "
        "which --data.root must name."
    )
