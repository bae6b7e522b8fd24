"""Images with the identity of each: data sets, augmentation, batches."""

from pathlib import Path

from ..catalogue import find, load_code
from .cifar import load_cifar10, load_cifar100
from .digits import load_digits
from .folder import load_folder
from .folder_layout import class_folders, split_layout
from .image_sets import ImageSet, Splits, balanced_subset, stratified
from .imagenet import load_imagenet
from .labels import keep_labels, relabelled
from .loaders import batches, epoch_order
from .mnist import load_fashion_mnist, load_mnist
from .parts import Parts
from .parts_folder import IMAGES, MASKS, TABLE, load_parts
from .svhn import load_svhn
from .synthetic_parts import load_synthetic_parts
from .tiny_imagenet import load_tiny_imagenet
from .transforms import Augmentation, ResizedCrop, resize_maps


def say_whether_there(name: str, root: Path | None) -> str:
    """Say in one line, for ``counterpart doctor``, whether a data set is there. Only the names of files are looked at.

    Raises:
        UserError: if there is no data set of that name.
    """
    entry = find("data", name)
    if not entry.inside:
        return f"{name}: your own code"
    if name == "digits":
        return "digits: there, it comes with scikit-learn"
    if name == "synthetic-parts":
        return "synthetic-parts: there, it is drawn when it is needed"
    if root is None:
        return f"{name}: not looked for, --data.root names no folder"
    root = Path(root).expanduser()
    if entry.facts.missing:
        folder = load_code(entry.facts.folder)(root)
        missing = load_code(entry.facts.missing)(folder)
        return f"{name}: {folder} lacks {', '.join(missing)}" if missing else f"{name}: there, in {folder}"
    if name == "parts":
        missing = [part for part in (IMAGES, MASKS, TABLE) if not (root / part).exists()]
        return f"parts: {root} has no {', '.join(missing)}" if missing else f"parts: there, in {root}"
    if not root.is_dir():
        return f"folder: {root} is no folder"
    splits = split_layout(root) or {"all images": root}
    counts = ", ".join(f"{split}: {len(class_folders(path))} classes" for split, path in splits.items())
    return f"folder: {root} ({counts})"


__all__ = [
    "Augmentation", "ImageSet", "Parts", "ResizedCrop", "Splits", "balanced_subset", "batches", "epoch_order",
    "keep_labels", "load_cifar10", "load_cifar100", "load_digits", "load_fashion_mnist", "load_folder", "load_imagenet",
    "load_mnist", "load_parts", "load_svhn", "load_synthetic_parts", "load_tiny_imagenet", "relabelled", "resize_maps",
    "say_whether_there", "stratified",
]  # fmt: skip
