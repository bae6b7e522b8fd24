"""The data sets that have a name."""

from dataclasses import dataclass

from .entries import Entry


@dataclass(frozen=True)
class DataFacts:
    """The facts about a data set that other parts of the program read.

    Attributes:
        has_parts: whether its images come with part masks.
        folder: the function, as module:name, from ``data.root`` to the folder below it that holds the data
            set.
        missing: the function, as module:name, that tells which files such a folder lacks.
        downloads: whether it can be downloaded.
        prepared_by_networks: whether its reader lets a network of timm resize and crop each image.
        takes_channels: whether its images can be read as grey ones, by the setting ``data.channels``.
        crops_to_parts: whether its images can be cropped around their parts, by the setting ``data.crop_to_parts``.
        takes_folds: whether its images can be split by photograph, by the setting ``data.fold``.
    """

    has_parts: bool = False
    folder: str = ""
    missing: str = ""
    downloads: bool = False
    prepared_by_networks: bool = False
    takes_channels: bool = False
    takes_folds: bool = False
    crops_to_parts: bool = False


_ENTRIES = (
    Entry(
        "digits", "digits", "data.digits:load_digits",
        "1,797 scans of handwritten digits that come with scikit-learn",
        DataFacts(),
    ),
    Entry(
        "mnist", "MNIST", "data.mnist:load_mnist",
        "70,000 handwritten digits of 28 pixels",
        DataFacts(folder="data.mnist:mnist_folder", missing="data.mnist:missing_files", downloads=True),
    ),
    Entry(
        "fashion-mnist", "Fashion-MNIST", "data.mnist:load_fashion_mnist",
        "70,000 pieces of clothing of 28 pixels",
        DataFacts(folder="data.mnist:fashion_mnist_folder", missing="data.mnist:missing_files", downloads=True),
    ),
    Entry(
        "cifar10", "CIFAR-10", "data.cifar:load_cifar10",
        "60,000 photographs of 32 pixels in ten classes",
        DataFacts(folder="data.cifar:cifar_folder", missing="data.cifar:missing_files", downloads=True),
    ),
    Entry(
        "cifar100", "CIFAR-100", "data.cifar:load_cifar100",
        "60,000 photographs of 32 pixels in a hundred classes",
        DataFacts(folder="data.cifar:cifar100_folder", missing="data.cifar:missing_cifar100_files", downloads=True),
    ),
    Entry(
        "svhn", "SVHN", "data.svhn:load_svhn",
        "99,289 house numbers of 32 pixels",
        DataFacts(folder="data.svhn:svhn_folder", missing="data.svhn:missing_files", downloads=True),
    ),
    Entry(
        "tiny-imagenet", "Tiny-ImageNet", "data.tiny_imagenet:load_tiny_imagenet",
        "110,000 photographs of 64 pixels in 200 classes",
        DataFacts(
            folder="data.tiny_imagenet:tiny_folder", missing="data.tiny_imagenet:missing_files", downloads=True
        ),
    ),
    Entry(
        "imagenet", "ImageNet", "data.imagenet:load_imagenet",
        "the ILSVRC 2012 photographs in a thousand classes, from their official files",
        DataFacts(
            folder="data.imagenet:imagenet_folder", missing="data.imagenet:missing_files", prepared_by_networks=True
        ),
    ),
    Entry(
        "folder", "folder", "data.folder:load_folder",
        "your own images: a folder for each class, below train, val and test if you like",
        DataFacts(prepared_by_networks=True, takes_channels=True, takes_folds=True),
    ),
    Entry(
        "parts", "parts", "data.parts_folder:load_parts",
        "images with part masks in one folder format (docs/parts-data.md)",
        DataFacts(has_parts=True, prepared_by_networks=True, takes_folds=True, crops_to_parts=True),
    ),
    Entry(
        "synthetic-parts", "synthetic-parts", "data.synthetic_parts:load_synthetic_parts",
        "drawn objects with part masks, made when they are needed",
        DataFacts(has_parts=True),
    ),
)  # fmt: skip
DATA_SETS = {entry.key: entry for entry in _ENTRIES}
