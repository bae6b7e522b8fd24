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
from .tiny_imagenet import load_tiny_imagenet, tiny_folder
from .tiny_imagenet import missing_files as missing_tiny_imagenet
from .transforms import Augmentation, resize_maps

DATA_SETS: dict[str, Callable[..., Splits]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "svhn": load_svhn,
    "tiny-imagenet": load_tiny_imagenet,
    "folder": load_folder,
}

# Data set -> its folder below a root, and what that lacks.
_OFFICIAL: dict[str, tuple[Callable[[Path], Path], Callable[[Path], list[str]]]] = {
    "cifar10": (cifar_folder, missing_files),
    "svhn": (Path, missing_svhn),
    "tiny-imagenet": (tiny_folder, missing_tiny_imagenet),
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
    if name in _OFFICIAL:
        folder, lacks = _OFFICIAL[name]
        missing = lacks(folder(root))
        return (
            f"{name}: {folder(root)} lacks {', '.join(missing)}"
            if missing
            else f"{name}: there, in {folder(root)}"
        )
    if not root.is_dir():
        return f"folder: {root} is no folder"
    splits = split_layout(root) or {"all images": root}
    counts = ", ".join(f"{split}: {len(class_folders(path))} classes" for split, path in splits.items())
    return f"folder: {root} ({counts})"


__all__ = [
    "DATA_SETS", "Augmentation", "ImageSet", "Splits", "balanced_subset", "batches", "epoch_order", "found",
    "load_cifar10", "load_digits", "load_folder", "load_svhn", "load_tiny_imagenet", "resize_maps", "stratified",
]  # fmt: skip
