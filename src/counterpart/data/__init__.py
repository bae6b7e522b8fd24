"""Images with the identity of each: data sets, augmentation, batches."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import UserError, nearest
from . import cifar, mnist
from .cifar import cifar_folder, load_cifar10, load_cifar100, missing_files
from .digits import load_digits
from .folder import load_folder
from .image_sets import ImageSet, Splits, balanced_subset, stratified
from .imagenet import load_imagenet
from .imagenet import missing_files as missing_imagenet
from .labels import keep_labels, relabelled
from .listing import class_folders, split_layout
from .loaders import batches, epoch_order
from .mnist import load_fashion_mnist, load_mnist, mnist_folder
from .parts import Parts
from .parts_folder import IMAGES, MASKS, TABLE, load_parts
from .svhn import load_svhn
from .svhn import missing_files as missing_svhn
from .synthetic_parts import load_synthetic_parts
from .tiny_imagenet import load_tiny_imagenet, tiny_folder
from .tiny_imagenet import missing_files as missing_tiny_imagenet
from .transforms import Augmentation, ResizedCrop, resize_maps

DATA_SETS: dict[str, Callable[..., Splits]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "svhn": load_svhn,
    "tiny-imagenet": load_tiny_imagenet,
    "imagenet": load_imagenet,
    "folder": load_folder,
    "parts": load_parts,
    "synthetic-parts": load_synthetic_parts,
}

# Data sets with official files -> their folder below a root, and what that lacks.
OFFICIAL: dict[str, tuple[Callable[[Path], Path], Callable[[Path], list[str]]]] = {
    "mnist": (partial(mnist_folder, official=mnist.MNIST), mnist.missing_files),
    "fashion-mnist": (partial(mnist_folder, official=mnist.FASHION_MNIST), mnist.missing_files),
    "cifar10": (cifar_folder, missing_files),
    "cifar100": (
        partial(cifar_folder, official=cifar.CIFAR100),
        partial(missing_files, official=cifar.CIFAR100),
    ),
    "svhn": (Path, missing_svhn),
    "tiny-imagenet": (tiny_folder, missing_tiny_imagenet),
    "imagenet": (Path, missing_imagenet),
}


def found(name: str, root: Path | None) -> str:
    """One line for ``doctor``: whether a data set is there. Looks at names of files only.

    Raises:
        UserError: if there is no data set of that name.
    """
    if name not in DATA_SETS:
        raise UserError(f"Unknown data set {name!r}. {nearest(name, DATA_SETS)}")
    if name == "digits":
        return "digits: there, it comes with scikit-learn"
    if name == "synthetic-parts":
        return "synthetic-parts: there, it is drawn when it is needed"
    if root is None:
        return f"{name}: not looked for, --data.root names no folder"
    root = Path(root).expanduser()
    if name in OFFICIAL:
        folder, lacks = OFFICIAL[name]
        missing = lacks(folder(root))
        return (
            f"{name}: {folder(root)} lacks {', '.join(missing)}"
            if missing
            else f"{name}: there, in {folder(root)}"
        )
    if name == "parts":
        missing = [part for part in (IMAGES, MASKS, TABLE) if not (root / part).exists()]
        return f"parts: {root} has no {', '.join(missing)}" if missing else f"parts: there, in {root}"
    if not root.is_dir():
        return f"folder: {root} is no folder"
    splits = split_layout(root) or {"all images": root}
    counts = ", ".join(f"{split}: {len(class_folders(path))} classes" for split, path in splits.items())
    return f"folder: {root} ({counts})"


__all__ = [
    "DATA_SETS", "OFFICIAL", "Augmentation", "ImageSet", "Parts", "ResizedCrop", "Splits", "balanced_subset", "batches",
    "epoch_order", "found", "keep_labels", "load_cifar10", "load_cifar100", "load_digits", "load_fashion_mnist",
    "load_folder", "load_imagenet", "load_mnist", "load_parts", "load_svhn", "load_synthetic_parts",
    "load_tiny_imagenet", "relabelled", "resize_maps", "stratified",
]  # fmt: skip
