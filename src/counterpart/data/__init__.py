"""Images with the identity of each: data sets, augmentation, batches."""

from collections.abc import Callable
from pathlib import Path

from ..errors import UserError, nearest
from .cifar import cifar_folder, load_cifar10, missing_files
from .digits import load_digits
from .folder import class_folders, load_folder, split_layout
from .image_sets import ImageSet, Splits, balanced_subset, stratified
from .loaders import batches, epoch_order
from .svhn import load_svhn
from .svhn import missing_files as missing_svhn
from .transforms import Augmentation, resize_maps

DATA_SETS: dict[str, Callable[..., Splits]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "svhn": load_svhn,
    "folder": load_folder,
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
    if root is None:
        return f"{name}: not looked for, --data.root names no folder"
    root = Path(root).expanduser()
    if name == "cifar10":
        folder = cifar_folder(root)
        missing = missing_files(folder)
        return f"cifar10: {folder} lacks {', '.join(missing)}" if missing else f"cifar10: there, in {folder}"
    if name == "svhn":
        missing = missing_svhn(root)
        return f"svhn: {root} lacks {', '.join(missing)}" if missing else f"svhn: there, in {root}"
    if not root.is_dir():
        return f"folder: {root} is no folder"
    splits = split_layout(root) or {"all images": root}
    counts = ", ".join(f"{split}: {len(class_folders(path))} classes" for split, path in splits.items())
    return f"folder: {root} ({counts})"


__all__ = [
    "DATA_SETS", "Augmentation", "ImageSet", "Splits", "balanced_subset", "batches", "epoch_order", "found",
    "load_cifar10", "load_digits", "load_folder", "load_svhn", "resize_maps", "stratified",
]  # fmt: skip
