"""What lies in a folder of images: its splits, its classes and their files, without what systems leave behind."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from .decoding import SUFFIXES

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval"),
}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}
# What archivers, network disks and Windows leave behind; hidden files and folders are passed over as well.
LEFT_BEHIND = (
    "__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini",
)  # fmt: skip


def split_of(name: str) -> str | None:
    """The split that a folder's name means, whatever its case; None if it means none."""
    return _SPLIT_OF.get(name.casefold())


def known_splits() -> str:
    """The names of split folders in words, for messages."""
    return "; ".join(", ".join(names) for names in SPLIT_NAMES.values())


def split_layout(root: Path) -> dict[str, Path]:
    """The folder of each split in the order train, validation, test; empty where the folder has none.

    Raises:
        UserError: two folders mean the same split, or a folder beside the splits means none.
    """
    layout: dict[str, Path] = {}
    others = []
    for folder in class_folders(root):
        split = split_of(folder.name)
        if split is None:
            others.append(folder.name)
        elif split in layout:
            raise UserError(
                f"{root} has both {layout[split].name} and {folder.name}, which mean the same split, {split}: "
                "keep one of them."
            )
        else:
            layout[split] = folder
    layout = {split: layout[split] for split in SPLIT_NAMES if split in layout}
    if layout and others:
        named = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise UserError(
            f"{root} has the split {next(iter(layout.values())).name} and beside it {named}, which is no split's name "
            f"({known_splits()}; in any case): rename it, or move it elsewhere."
        )
    return layout


def class_folders(folder: Path) -> list[Path]:
    """The class folders of one split, sorted; hidden ones, what systems leave behind and loops are passed over."""
    around = _ancestors(folder)
    return sorted(
        child
        for child in folder.iterdir()
        if child.is_dir() and _is_wanted(child.name) and os.path.realpath(child) not in around
    )


def files_by_class(folder: Path) -> dict[str, list[Path]]:
    """The image files under each class folder, sorted by name as text, which is the same on every platform."""
    listed = {}
    for class_folder in class_folders(folder):
        files = image_files(class_folder)
        if not files:
            raise UserError(
                f"The class folder {class_folder} holds no images ({', '.join(SUFFIXES)}): fill or remove it."
            )
        listed[class_folder.name] = files
    if not listed:
        raise UserError(f"{folder} has no class folders: expected {folder / 'CLASS' / 'IMAGE.jpg'}.")
    return listed


def image_files(folder: Path) -> list[Path]:
    """Image files in a folder and below it, sorted by path as text; hidden ones are passed over."""
    return [path for path in visible_files(folder) if path.name.lower().endswith(SUFFIXES)]


def visible_files(folder: Path) -> list[Path]:
    """Files in a folder and below it, sorted by path as text; hidden ones are passed over.

    Links to folders are followed, each folder is searched once, and none that the search began in.

    Raises:
        UserError: if a folder cannot be opened.
    """
    return sorted(_walk(folder), key=Path.as_posix)


def _walk(folder: Path) -> Iterator[Path]:
    searched = _ancestors(folder)
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        here = Path(parent)
        new = []
        # a folder itself before links to it, so that its files have the same names with and without the links
        for name in sorted(folders, key=lambda name: ((here / name).is_symlink(), name)):
            real = os.path.realpath(here / name)
            if _is_wanted(name) and real not in searched:
                searched.add(real)
                new.append(name)
        folders[:] = new
        yield from (here / name for name in names if _is_wanted(name))


def _ancestors(folder: Path) -> set[str]:
    """The real paths of a folder and of all that it lies in, which a link below it must not lead back to."""
    real = Path(os.path.realpath(folder))
    return {str(real), *map(str, real.parents)}


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in LEFT_BEHIND


def _refuse(error: OSError) -> None:
    raise UserError(f"Cannot open the folder {error.filename}: {error.strerror}.")
