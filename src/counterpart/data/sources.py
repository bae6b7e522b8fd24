"""Folders that people bring: where an image of a name is, and which split and class its place or a table gives it."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UserError, unreadable
from ..parsing.limits import read_text
from .decoding import SUFFIXES
from .folder_layout import class_folders, image_files, split_of, visible_files
from .plans import Options

# Folders that hold images or annotations of any class.
PLAIN = {
    "images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "data", "upload", "uploads", "default",
    "annotations", "annotation", "labels", "label", "json", "jsons", "masks", "mask", "segmentationclass", "parts",
}  # fmt: skip
SHOWN = 3


@dataclass(frozen=True)
class SourceImages:
    """The image files of a source, by their names, and the names of the folders that hold them."""

    root: Path
    by_name: Mapping[str, Sequence[PurePosixPath]]
    folders: frozenset[str]

    def find(self, name: str, beside: Path, *, near: bool = False) -> Path | None:
        """The image that a file calls by a name; None if it is not there.

        Tools write names of their own place: ``images/7.jpg``, ``..\\\\upload\\\\7.jpg``, a whole address. So the image
        is the one whose path ends as the name does; or the only one of that name, if the folders before it are nowhere
        in the source.

        Args:
            name: as the file has it.
            beside: the file. Of several images the one in its own folder is meant; and none of another split.
            near: the image must lie in the file's folder or below it, as far as folders mean something: what
                ``cat/7.json`` calls 7.jpg may be ``images/cat/7.jpg``, and never ``dog/7.jpg``.

        Raises:
            UserError: several images could be meant.
        """
        wanted = [part for part in re.split(r"[\\/]+", name) if part not in ("", ".", "..")]
        paths = self.by_name.get(wanted[-1], ()) if wanted else ()
        ending = [path for path in paths if path.parts[-len(wanted) :] == tuple(wanted)]
        if not ending and not self.folders.intersection(wanted[:-1]):
            ending = list(paths)
        split = split_of_file(beside, self.root)
        ending = [path for path in ending if split in (None, split_in(path.parent.parts) or split)]
        if near:
            around = _telling(beside.relative_to(self.root).parent.parts)
            ending = [path for path in ending if _telling(path.parent.parts)[: len(around)] == around]
        if len(ending) > 1:
            here = [path for path in ending if (self.root / path).parent == beside.parent]
            ending = here or [path for path in ending if split and split_in(path.parent.parts)] or ending
        if len(ending) > 1:
            raise UserError(
                f"{beside} names the image {name}, which could be {self.root / ending[0]} or {self.root / ending[1]}: "
                "write the folder into the name, or rename one of them."
            )
        return self.root / ending[0] if ending else None

    def places(self) -> list[str]:
        """The paths of all images, relative to the source."""
        return [path.as_posix() for paths in self.by_name.values() for path in paths]


def list_images(root: Path) -> SourceImages:
    """Look up all images in a folder and below it; hidden ones are passed over."""
    by_name: dict[str, list[PurePosixPath]] = {}
    folders: set[str] = set()
    for path in image_files(root):
        relative = PurePosixPath(path.relative_to(root).as_posix())
        by_name.setdefault(relative.name, []).append(relative)
        folders.update(relative.parent.parts)
    return SourceImages(root, by_name, frozenset(folders))


def json_files(root: Path) -> list[Path]:
    """The JSON files in a folder and below it.

    Raises:
        UserError: there is none.
    """
    files = [path for path in visible_files(root) if path.suffix.lower() == ".json"]
    if not files:
        raise UserError(
            f"{root} holds no .json: --source must name the folder of the annotations and images."
        )
    return files


def split_in(parts: Iterable[str]) -> str | None:
    """The split that one of a path's parts names, as train, val or test; None if none does."""
    for part in parts:
        split = split_of(part)
        if split is not None:
            return "val" if split == "validation" else split
    return None


def split_of_file(path: Path, root: Path) -> str | None:
    """The split that an annotation file is for, by its folders or its name: ``instances_train2017.json``."""
    return split_in([*path.relative_to(root).parent.parts, *_words(path.stem)])


def _words(stem: str) -> list[str]:
    return [word for word in re.split(r"[^A-Za-z]+", stem) if word]


def class_in(path: PurePosixPath) -> str | None:
    """The folder of a path, relative to the source, that can only be that of a class; None if there is none."""
    parts = [part for part in _telling(path.parent.parts) if split_of(part) is None]
    return parts[0] if parts else None


def _telling(folders: Iterable[str]) -> list[str]:
    """Those folders that say something of what is in them: splits and classes."""
    return [folder for folder in folders if folder.casefold() not in PLAIN]


def refuse_empty_classes(root: Path, labels: Iterable[str]) -> None:
    """Refuse a class folder without an image beside the others by a UserError."""
    known = set(labels)
    within = [
        root,
        *(path for path in class_folders(root) if class_in(PurePosixPath(path.name, "x")) is None),
    ]
    within += [path for folder in within[1:] for path in class_folders(folder) if split_of(path.name)]
    siblings = {path for folder in within for path in class_folders(folder)}
    for path in sorted(siblings):
        if path.name not in known and class_in(PurePosixPath(path.name, "x")) and not visible_files(path):
            raise UserError(f"The class folder {path} is empty: fill or remove it.")


def read_classes(path: Path) -> dict[str, str]:
    """Read a table of images and classes: two columns, with or without a head.

    Returns:
        {image: class}; an empty class leaves an image out.

    Raises:
        UserError: the file cannot be read or is no such table.
    """
    rows = read_rows(path)
    table: dict[str, str] = {}
    for number, row in enumerate(rows):
        if len(row) < 2 or not row[0]:
            raise UserError(f"{path}: expected lines such as 'photos/7.jpg,car', got {','.join(row)!r:.80}.")
        image = row[0].replace("\\", "/").removeprefix("./")
        if number == 0 and not image.lower().endswith(SUFFIXES):
            continue  # the head
        if table.get(image, row[1]) != row[1]:
            raise UserError(f"{path} gives {image} two classes, {table[image]!r} and {row[1]!r}.")
        table[image] = row[1]
    if not table:
        raise UserError(f"{path} names no image: expected lines such as 'photos/7.jpg,car'.")
    return table


def read_rows(path: Path) -> list[list[str]]:
    """The rows of a text table that are not empty, cut at commas, semicolons or tabs, whichever its first line has."""
    try:
        text = read_text(path.expanduser())
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the home of nobody
        raise unreadable(path, error) from None
    lines = [line for line in text.splitlines() if line.strip()]
    delimiter = next((mark for mark in ("\t", ";", ",") if lines and mark in lines[0]), ",")
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"{path} is no table of text: {error}.") from None


def classes_by_table(
    images: Iterable[str], path: Path, there: Iterable[str], *, allow_missing: bool = False
) -> dict[str, str | None]:
    """The class of each image by a table, None for one to be left out.

    A line of the table means the images whose path ends as its name does.

    Args:
        images: the annotated images.
        path: the table.
        there: all images of the source: the table may name those that nobody annotated.
        allow_missing: it may also name images that are not there.

    Raises:
        UserError: an image is in no line, a line means no image, or a class has no annotated image.
    """
    table = read_classes(path)
    used: set[str] = set()
    labels: dict[str, str | None] = {}
    lost = []
    for image in images:
        name = _line_of(image, table)
        if name is None:
            lost.append(image)
            continue
        used.add(name)
        labels[image] = table[name] or None
    if lost:
        raise UserError(
            f"{path} has no line for {len(lost):,} of the images ({some(lost)}): add them, with an empty class "
            "for those to be left out."
        )
    used.update(name for image in there if (name := _line_of(image, table)) is not None)
    if (idle := sorted(set(table) - used)) and not allow_missing:
        raise UserError(
            f"{path} names {len(idle):,} images that are not there ({some(idle)}): mend it, or pass --allow-missing."
        )
    if empty := sorted(set(table.values()) - set(labels.values()) - {""}):
        raise UserError(
            f"{path} has the class {empty[0]!r}, of which no image is annotated: annotate some, or leave the class out "
            "(an empty class leaves an image out)."
        )
    return labels


def _line_of(image: str, table: Mapping[str, str]) -> str | None:
    """The name in a table that means an image, the longest first; None if none does."""
    parts = PurePosixPath(image).parts
    endings = ("/".join(parts[k:]) for k in range(len(parts)))
    return next((ending for ending in endings if ending in table), None)


def some(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def sample_name(relative: PurePosixPath, label: str | None) -> str:
    """A name for the files of a sample: its path without what every sample's has, and without the suffix."""
    folders = _telling(relative.parent.parts)
    parts = [folder for folder in folders if split_of(folder) is None and folder != label]
    return "_".join([*parts, relative.stem]).lstrip(".")


def check_class_name(name: str) -> None:
    """Refuse a class that cannot be the name of a folder by a UserError."""
    if not name.strip() or name.startswith(".") or re.search(r'[\\/:*?"<>|\x00-\x1f]', name):
        raise UserError(
            f"The class {name!r:.60} cannot be the name of a folder: rename it, or name the classes by --classes "
            "FILE.csv."
        )


def unused(name: str, label: str, used: set[str]) -> str:
    """The name, or with a number if a sample of the class has it, whatever its case; what is given is remembered."""
    number, tried = 1, name
    while f"{label}/{tried}".casefold() in used:
        number += 1
        tried = f"{name}-{number}"
    used.add(f"{label}/{tried}".casefold())
    return tried


def check_splits(samples: Sequence[tuple[str, str | None]], options: Options) -> str:
    """See whether classes are in every split, or can be.

    Args:
        samples: class of each, and its split in the source.
        options: how the data set is prepared.

    Returns:
        "source" where the source has splits for all samples, else "photograph": how splits are made by default.

    Raises:
        UserError: the splits of the source are asked for and not there, or lack a class; or a class has one image.
    """
    there = {split for _, split in samples}
    has_splits = None not in there and len(there) > 1
    split = options.split or ("source" if has_splits else "photograph")
    if split == "source" and not has_splits:
        named = "some images only" if len(there) > 1 else "no images"
        raise UserError(
            f"--split source: the source has train, val and test, by folders or names of files, for {named}. Leave it "
            "out to have splits drawn."
        )
    counts = Counter(label for label, _ in samples)
    if split == "source":
        for name in sorted(there, key=str):
            if lacking := sorted(set(counts) - {label for label, of_label in samples if of_label == name}):
                raise UserError(
                    f"{name} has no image of the class {lacking[0]!r}, and every split needs every class: add one, or "
                    "have splits drawn by --split photograph."
                )
    elif single := sorted(label for label, count in counts.items() if count < 2):
        raise UserError(
            f"The class {single[0]!r} has one image, and needs one for training and one for testing: add some, or "
            "leave the class out (by --classes FILE.csv, with an empty class for its images)."
        )
    return "source" if has_splits else "photograph"


def said_of_splits(default: str, options: Options) -> str:
    """How the splits are made, in a sentence."""
    split = options.split or default
    if split == "source":
        return "Splits are those of the source"
    return f"Splits are drawn by {split}, a tenth of each class for val and for test, seed {options.seed}"


def said_of_missing(count: int) -> list[str]:
    """How many images were left out because they are not there, if any were."""
    return [f"{count:,} images are annotated and not there: left out"] if count else []
