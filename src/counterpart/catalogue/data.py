"""The data sets that have a name."""

from dataclasses import dataclass

from .entries import Entry


@dataclass(frozen=True)
class DataFacts:
    """What others must know of a data set.

    Attributes:
        needs_root: whether a folder must be named: ``data.root``.
        has_parts: whether its images come with part masks.
        folder: where it lies below ``data.root``: a function of that folder.
        missing: what that folder lacks: a function of it.
        of_files: whether its images are files of the user's own, prepared as a network wants them.
    """

    needs_root: bool = True
    has_parts: bool = False
    folder: str = ""
    missing: str = ""
    of_files: bool = False


_ENTRIES = (
    Entry(
        "digits", "digits", "data.digits:load_digits",
        "1,797 scans of handwritten digits that come with scikit-learn",
        DataFacts(needs_root=False),
    ),
    Entry(
        "cifar10", "CIFAR-10", "data.cifar:load_cifar10",
        "60,000 photographs of 32 pixels in ten classes",
        DataFacts(folder="data.cifar:cifar_folder", missing="data.cifar:missing_files"),
    ),
    Entry(
        "svhn", "SVHN", "data.svhn:load_svhn",
        "99,289 house numbers of 32 pixels",
        DataFacts(folder="data.svhn:svhn_folder", missing="data.svhn:missing_files"),
    ),
    Entry(
        "tiny-imagenet", "Tiny-ImageNet", "data.tiny_imagenet:load_tiny_imagenet",
        "110,000 photographs of 64 pixels in 200 classes",
        DataFacts(folder="data.tiny_imagenet:tiny_folder", missing="data.tiny_imagenet:missing_files"),
    ),
    Entry(
        "folder", "folder", "data.folder:load_folder",
        "your own images: a folder for each class, below train, val and test if you like",
        DataFacts(of_files=True),
    ),
    Entry(
        "parts", "parts", "data.parts_folder:load_parts",
        "images with part masks in one folder format (docs/parts-data.md)",
        DataFacts(has_parts=True, of_files=True),
    ),
    Entry(
        "synthetic-parts", "synthetic-parts", "data.synthetic_parts:load_synthetic_parts",
        "drawn objects with part masks, made when they are needed",
        DataFacts(needs_root=False, has_parts=True),
    ),
)  # fmt: skip
DATA_SETS = {entry.key: entry for entry in _ENTRIES}
