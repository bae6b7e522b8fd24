"""Readers of images that a program already holds: tensors, arrays, and data sets of torch or Hugging Face.

Samples are read once, in order, and the position of a sample is its index. 8-bit images stay 8-bit, and
floats keep their values. A data set with indices that is too large for memory stays where it is: it is read once for
its labels and its fingerprint, and then batch by batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from ..checks import check_unit_range
from ..progress import track
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered
from .mapped import room_for
from .samples import LABEL_COLUMNS, Samples, as_label, as_sample, checksum, pair_of, pairs, pixels_of
from .streaming import default_workers, stream

# In bytes. A larger data set with indices is read on demand, a larger iterable goes into a file that is mapped.
IN_MEMORY = 2**32
SCANNED = 64  # samples that a worker reads at once when a large data set is opened
TEST_SHARE = 0.2  # the share of training images that is set aside where no test images are given


def read_objects(
    data: Any,
    *,
    split: str = "test",
    name: str | None = None,
    classes: Sequence[str] | None = None,
    folder: Path | None = None,
) -> ImageSet:
    """The images and labels of a data set, as an ``ImageSet``.

    Args:
        data: one of
            - (images, labels): a tensor or array (N, C, H, W), (N, H, W, C) or (N, H, W), and N labels. Images are
              8-bit integers, or floats in [0, 1];
            - a torch ``Dataset``, or any sized iterable, of pairs (PIL image, tensor or array; label);
            - a Hugging Face ``datasets.Dataset`` with a column of images and one of labels;
            - an ``ImageSet``, which is returned as it is.
        split: the name that records give the images, such as "test".
        name: the name of the data set. The default is the name of its type.
        classes: the name of each class. The default is the names in the data set, or else numbers.
        folder: a folder on the disk that takes an iterable that is too large for memory. The default is the
            folder for temporary files.

    Raises:
        ValueError: the data have none of these forms, the images differ in size, or the labels are no class
            indices.
    """
    if isinstance(data, ImageSet):
        return data
    pixels: Tensor | None = None
    samples: Samples | None = None
    known: Sequence[str] | None = None
    if isinstance(data, tuple | list) and len(data) == 2 and _is_batch(data[0]):
        pixels, labels = pixels_of(data[0]), _as_labels(data[1])
    else:
        _refuse_what_holds_no_pairs(data)
        count, known = _length_of(data), _class_names(data)
        first = _first_if_too_large(data, count)
        if first is None:
            pixels, labels = _read_samples(data, count, folder)
        else:
            samples, labels, fingerprint = _scan_samples(data, count, first)
            shape = tuple(first.shape)
    if pixels is not None:
        shape = tuple(pixels.shape[1:])
        if len(pixels) != len(labels):
            raise ValueError(
                f"there are {len(pixels)} images and {len(labels)} labels: each image needs one label."
            )
        if pixels.is_floating_point():
            check_unit_range(pixels)
        fingerprint = content_fingerprint([pixels, labels])
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels must be class indices from 0 on, got {int(labels.min())}.")
    if classes is None:
        classes = known
    names = () if classes is None else tuple(classes)
    count = int(labels.max()) + 1 if len(labels) else 0
    names += tuple(str(number) for number in range(len(names), count))
    return ImageSet(
        name=name or _name_of(data),
        split=split,
        classes=names,
        labels=labels,
        index=torch.arange(len(labels)),
        fingerprint=fingerprint,
        shape=(shape[0], shape[1], shape[2]),
        pixels=pixels,
        samples=samples,
        names=numbered(split, len(labels)),
    )


def read_splits(data: Any, validation: float) -> Splits:
    """The training, validation and test images of data to train on.

    Args:
        data: the training images, in any form that ``read_objects`` takes, or a mapping
            {"train": ..., "validation": ..., "test": ...}. A split that is missing is drawn from the training
            images: first a fifth of them for testing, then the share ``validation``.
        validation: the share of the training images that is kept for validation.

    Raises:
        ValueError: ``read_objects`` refuses the data, they have no indices, or the splits do not belong
            together.
    """
    if isinstance(data, Splits):
        return data
    data_by_split = data if isinstance(data, Mapping) else {"train": data}
    if unknown := set(data_by_split) - {"train", "validation", "test"}:
        raise ValueError(f"splits are train, validation and test, got {sorted(unknown)[0]!r}.")
    for part in data_by_split.values():
        if not (isinstance(part, tuple | list | ImageSet) or hasattr(part, "__getitem__")):
            raise ValueError(
                f"training needs data with indices, which {type(part).__name__} lacks: give tensors or a data set."
            )
    splits = {name: read_objects(part, split=name) for name, part in data_by_split.items()}
    for name, images in splits.items():
        if images.shape != splits["train"].shape or len(images.classes) > len(splits["train"].classes):
            raise ValueError(
                f"{name} images are {images.shape} of {len(images.classes)} classes, training images are "
                f"{splits['train'].shape} of {len(splits['train'].classes)}."
            )
    train = splits["train"]
    for name, share in (("test", TEST_SHARE), ("validation", validation)):
        if name not in splits:
            train, splits[name] = hold_out(train, share, name)
    fingerprint = content_fingerprint(images.fingerprint.encode() for images in splits.values())
    name, classes = train.name, train.classes
    all_splits = Splits(train, splits["validation"], splits["test"])
    return all_splits.each(
        lambda images: replace(images, fingerprint=fingerprint, classes=classes, name=name)
    )


def is_data(thing: Any) -> bool:
    """Whether a thing holds images itself, and is not the name of a data set or of a folder."""
    return not isinstance(thing, str | Path | None)


def _is_batch(thing: Any) -> bool:
    return isinstance(thing, Tensor | np.ndarray) and thing.ndim in (3, 4)


def _as_labels(labels: Any) -> Int[Tensor, " n"]:
    tensor = labels.detach().cpu() if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    if tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    several = " Several labels for an image (multi-label) are not supported." if tensor.ndim > 1 else ""
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise ValueError(
            f"labels must be one class index for each image, (N,) of integers; got {tuple(tensor.shape)} of "
            f"{tensor.dtype}.{several}"
        )
    return tensor.long()


def _refuse_what_holds_no_pairs(data: Any) -> None:
    """Refuse what people often give by habit, and say what to give instead."""
    if isinstance(data, Tensor | np.ndarray):
        raise ValueError("images come without labels: give (images, labels).")
    if isinstance(data, Mapping):
        raise ValueError(f"a {type(data).__name__} is no data set: give (images, labels), or a split of it.")
    if isinstance(data, DataLoader):
        raise ValueError(
            "a DataLoader gives batches, in an order of its own: give its data set, loader.dataset."
        )


def _length_of(data: Any) -> int:
    """The number of samples, of which there must be some."""
    if not hasattr(data, "__len__"):
        raise ValueError(
            f"data of type {type(data).__name__} has no length: give (images, labels), a data set, or an iterable with "
            "__len__."
        )
    if len(data) == 0:
        raise ValueError("the data hold no images: give at least one.")
    return len(data)


def _first_if_too_large(data: Any, count: int) -> Tensor | None:
    """The first image of a data set that has indices and does not fit into memory; None for any other."""
    if not hasattr(data, "__getitem__"):
        return None
    first = as_sample(pair_of(data[0], 0)[0])
    return first if count * first.nbytes > IN_MEMORY else None


def _read_samples(data: Any, count: int, folder: Path | None) -> tuple[Tensor, Tensor]:
    """The images (N, C, H, W) and labels (N,) of a data set, each read once, in order."""
    pixels: Tensor | None = None
    labels: list[int] = []
    for position, (image, label) in enumerate(pairs(data)):
        if position == count:
            raise ValueError(f"the data say that they hold {count} samples, and give more.")
        sample = as_sample(image)
        if pixels is None:
            pixels = room_for((count, *sample.shape), sample.dtype, most=IN_MEMORY, folder=folder)
        _refuse_another_form(sample, position, pixels[0])
        pixels[position] = sample
        labels.append(as_label(label, position))
    if pixels is None or len(labels) < count:
        raise ValueError(f"the data say that they hold {count} samples, and give {len(labels)}.")
    return pixels, torch.tensor(labels)


def _scan_samples(data: Any, count: int, first: Tensor) -> tuple[Samples, Tensor, str]:
    """A data set that stays where it is, its labels (N,), and the fingerprint that its images would have in memory.

    Every sample is read once, by all workers; images are not kept.
    """
    labels, sums = torch.empty(count, dtype=torch.int64), torch.empty(count, dtype=torch.int64)

    def read(rows: range) -> list[Tensor]:
        samples = [pair_of(data[row], row) for row in rows]
        images = [as_sample(image) for image, _ in samples]
        for row, image in zip(rows, images, strict=True):
            _refuse_another_form(image, row, first)
            if image.is_floating_point():
                check_unit_range(image)
        of_rows = [as_label(label, row) for row, (_, label) in zip(rows, samples, strict=True)]
        return [
            torch.stack(images),
            torch.tensor(of_rows),
            torch.tensor([checksum(image) for image in images]),
        ]

    def chunks() -> Iterator[Tensor]:
        jobs = (range(start, min(start + SCANNED, count)) for start in range(0, count, SCANNED))
        room = [((SCANNED, *first.shape), first.dtype), ((SCANNED,), torch.int64), ((SCANNED,), torch.int64)]
        with track("opening the data", count) as bar:
            for rows, (pixels, *others) in stream(read, jobs, room, default_workers()):
                labels[rows.start : rows.stop], sums[rows.start : rows.stop] = others
                yield pixels
                bar.advance(len(rows))
        yield labels

    fingerprint = content_fingerprint(chunks())
    return Samples(data, torch.arange(count), sums, first.dtype), labels, fingerprint


def _refuse_another_form(sample: Tensor, position: int, first: Tensor) -> None:
    if sample.shape != first.shape or sample.dtype != first.dtype:
        raise ValueError(
            f"sample {position} is {tuple(sample.shape)} of {sample.dtype}, those before it are "
            f"{tuple(first.shape)} of {first.dtype}: resize them to one size, in one type."
        )


def _class_names(data: Any) -> Sequence[str] | None:
    """The class names that a data set of torchvision or Hugging Face holds; None where it holds none."""
    names = getattr(data, "classes", None)
    if names is None and hasattr(data, "features"):
        label = next((data.features[name] for name in LABEL_COLUMNS if name in data.features), None)
        names = getattr(label, "names", None)
    return None if names is None else [str(name) for name in names]


def _name_of(data: Any) -> str:
    return "tensors" if isinstance(data, tuple | list) else type(data).__name__
