"""The images of published benchmarks: whether a data set that was read is the benchmark's, and which of it count.

The list of ImageNet, ``robustbench_imagenet.txt``, has a line for each image of RobustBench's
``helper_files/imagenet_test_image_ids.txt``, in its order: the number of the validation image, and the position of its
class among the sorted WordNet ids. ``IMAGENET_SHA256`` is the hash of that published file, which is put together again
of the names and classes that the user's data have.
"""

import hashlib
from pathlib import Path

import torch

from ..errors import UserError
from . import cifar
from .image_sets import ImageSet

IMAGENET_LIST = Path(__file__).parent / "robustbench_imagenet.txt"
IMAGENET_SHA256 = "d4121626d07722a0126c35b1563042e46a546f1a05ce705f2cdc635896d58574"
SUFFIX = ".JPEG"


def cifar_test(images: ImageSet, root: Path | None) -> ImageSet:
    """The test images of CIFAR-10 or CIFAR-100, in their order.

    Args:
        images: the test split.
        root: the folder that holds the data set.

    Raises:
        UserError: the file of the test images is not the official one, by its MD5.
    """
    official = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}[images.name]
    [name] = official.files["test"]
    path = cifar.cifar_folder(root, official) / name
    md5, expected = (
        hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
        cifar.official_md5(official, name),
    )
    if md5 != expected:
        raise UserError(
            f"{path} is not the official file of {official.title}'s test images (its MD5 is {md5}, and that file's is "
            f"{expected}): a number on these images is none of the benchmark."
        )
    return images


def listed_imagenet(images: ImageSet, root: Path | None) -> ImageSet:
    """The listed validation images of ImageNet, in the order of the list.

    Args:
        images: the official validation images, or some of them, with their files.
        root: the folder that holds the data set.

    Raises:
        UserError: a listed image is missing, or its class is not that of the list.
    """
    place = {path.stem: position for position, path in enumerate(images.files or ())}
    listed = read_imagenet_list()
    stems = [f"ILSVRC2012_val_{number:08d}" for number, _ in listed]
    if missing := [stem for stem in stems if stem not in place]:
        raise UserError(
            f"{root} lacks {len(missing):,} of the {len(stems):,} images of the benchmark, such as "
            f"{missing[0]}{SUFFIX}."
        )
    positions = torch.tensor([place[stem] for stem in stems])
    wnids = [images.classes[label] for label in images.labels[positions].tolist()]
    lines = [f"{wnid}/{stem}{SUFFIX}" for wnid, stem in zip(wnids, stems, strict=True)]
    sha256 = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if sha256 != IMAGENET_SHA256:
        raise UserError(
            f"{root}: the classes of the {len(stems):,} images of the benchmark are not those of its list (SHA-256 "
            f"{sha256[:12]}, and the list has {IMAGENET_SHA256[:12]}): folders or labels were changed."
        )
    return images.subset(positions)


def read_imagenet_list() -> list[tuple[int, int]]:
    """The number of each listed validation image, and the position of its class among the 1,000."""
    lines = IMAGENET_LIST.read_text(encoding="ascii").splitlines()
    return [(int(number), int(label)) for number, label in map(str.split, lines)]
