"""Files of two image sets that hold the same bytes: images that a model has seen and is then judged on."""

import hashlib
from pathlib import Path

from .image_sets import ImageSet

OWN_FILES = ("folder", "parts")  # the users' own sets; what published sets share is known
HEAD_BYTES = 4096  # beginnings are compared first, so that files of equal size are not all read in full


def count_twins(judged: ImageSet, training_images: ImageSet) -> int:
    """Count the images of a set whose file has the same content as a file of the other set; 0 for sets without files.

    Files are read only where sizes and then beginnings agree.
    """
    if judged.name not in OWN_FILES or not judged.files or not training_images.files:
        return 0
    ours, theirs = list(judged.files), list(training_images.files)
    for trait in (_size, _head, _content):
        of_ours, of_theirs = [trait(path) for path in ours], [trait(path) for path in theirs]
        shared = set(of_ours) & set(of_theirs)
        ours = [path for path, value in zip(ours, of_ours, strict=True) if value in shared]
        theirs = [path for path, value in zip(theirs, of_theirs, strict=True) if value in shared]
    return len(ours)


def _size(path: Path) -> object:
    return path.stat().st_size


def _head(path: Path) -> object:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(HEAD_BYTES)).digest()


def _content(path: Path) -> object:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
