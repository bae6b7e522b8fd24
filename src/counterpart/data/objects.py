"""Readers of images that a program already holds: tensors, arrays, and data sets of torch or Hugging Face.

Samples are read once, in order, and the position of a sample is its index. 8-bit images stay 8-bit, and
floats keep their values.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ..checks import check_unit_range
from .decoding import in_channels
from .image_sets import ImageSet, Splits, content_fingerprint, hold_out, numbered

IN_MEMORY = 2**32  # in bytes; a larger set of images goes into a file that is mapped into memory
TEST_SHARE = 0.2  # the share of training images that is set aside where no test images are given
IMAGE_COLUMNS = ("image", "img", "pixel_values")
GREY = ("1", "L", "LA")  # the modes that Pillow gives grey images
LABEL_COLUMNS = ("label", "labels", "fine_label", "target")


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
        folder: a folder on the disk that takes a set that is too large for memory. The default is the folder
            for temporary files.

    Raises:
        ValueError: the data have none of these forms, the images differ in size, or the labels are no class
            indices.
    """
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, tuple | list) and len(data) == 2 and _is_batch(data[0]):
        pixels, labels = pixels_of(data[0]), _as_labels(data[1])
        known: Sequence[str] | None = None
    else:
        _refuse_what_holds_no_pairs(data)
        pixels, labels = _read_samples(data, folder)
        known = _class_names(data)
    if len(pixels) != len(labels):
        raise ValueError(
            f"there are {len(pixels)} images and {len(labels)} labels: each image needs one label."
        )
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels must be class indices from 0 on, got {int(labels.min())}.")
    if pixels.is_floating_point():
        check_unit_range(pixels)
    names = tuple(classes if classes is not None else known if known is not None else ())
    count = int(labels.max()) + 1 if len(labels) else 0
    names += tuple(str(number) for number in range(len(names), count))
    shape = (int(pixels.shape[1]), int(pixels.shape[2]), int(pixels.shape[3]))
    return ImageSet(
        name=name or _name_of(data),
        split=split,
        classes=names,
        labels=labels,
        index=torch.arange(len(labels)),
        fingerprint=content_fingerprint([pixels, labels]),
        shape=shape,
        pixels=pixels,
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
    given = data if isinstance(data, Mapping) else {"train": data}
    if unknown := set(given) - {"train", "validation", "test"}:
        raise ValueError(f"splits are train, validation and test, got {sorted(unknown)[0]!r}.")
    for part in given.values():
        if not (isinstance(part, tuple | list | ImageSet) or hasattr(part, "__getitem__")):
            raise ValueError(
                f"training needs data with indices, which {type(part).__name__} lacks: give tensors or a data set."
            )
    splits = {name: read_objects(part, split=name) for name, part in given.items()}
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
    made = Splits(train, splits["validation"], splits["test"])
    return made.each(lambda images: replace(images, fingerprint=fingerprint, classes=classes, name=name))


def is_data(thing: Any) -> bool:
    """Whether a thing holds images itself, and is not the name of a data set or of a folder."""
    return not isinstance(thing, str | Path | None)


def _is_batch(thing: Any) -> bool:
    return isinstance(thing, Tensor | np.ndarray) and thing.ndim in (3, 4)


def pixels_of(images: Any) -> Tensor:
    """The pixels of a batch of images as a tensor (N, C, H, W), uint8 or float32, on the CPU."""
    tensor = (
        images.detach().cpu()
        if isinstance(images, Tensor)
        else torch.from_numpy(np.ascontiguousarray(images))
    )
    if tensor.ndim == 3:
        tensor = tensor[:, None]
    if tensor.shape[1] not in (1, 3) and tensor.shape[-1] in (1, 3):
        tensor = tensor.permute(0, 3, 1, 2)
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ValueError(f"images must be 8-bit integers or floats in [0, 1], got {tensor.dtype}.")
    return tensor.contiguous() if tensor.dtype == torch.uint8 else tensor.float().contiguous()


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


def _read_samples(data: Any, folder: Path | None) -> tuple[Tensor, Tensor]:
    """The images (N, C, H, W) and labels (N,) of a data set, each read once, in order."""
    if not hasattr(data, "__len__"):
        raise ValueError(
            f"data of type {type(data).__name__} has no length: give (images, labels), a data set, or an iterable with "
            "__len__."
        )
    count = len(data)
    if count == 0:
        raise ValueError("the data hold no images: give at least one.")
    pixels: Tensor | None = None
    labels: list[int] = []
    for position, (image, label) in enumerate(_pairs(data)):
        if position == count:
            raise ValueError(f"the data say that they hold {count} samples, and give more.")
        sample = _as_sample(image)
        if pixels is None:
            pixels = _allocate((count, *sample.shape), sample.dtype, folder)
        if sample.shape != pixels.shape[1:] or sample.dtype != pixels.dtype:
            raise ValueError(
                f"sample {position} is {tuple(sample.shape)} of {sample.dtype}, those before it are "
                f"{tuple(pixels.shape[1:])} of {pixels.dtype}: resize them to one size, in one type."
            )
        pixels[position] = sample
        labels.append(_as_label(label, position))
    if pixels is None or len(labels) < count:
        raise ValueError(f"the data say that they hold {count} samples, and give {len(labels)}.")
    return pixels, torch.tensor(labels)


def _pairs(data: Any) -> Iterator[tuple[Any, Any]]:
    columns = getattr(data, "column_names", None)
    if columns is None:
        samples: Iterable[Any] = (
            (data[position] for position in range(len(data))) if hasattr(data, "__getitem__") else data
        )
        for position, sample in enumerate(samples):
            if not isinstance(sample, tuple | list) or len(sample) < 2:
                raise ValueError(
                    f"sample {position} is {type(sample).__name__}: expected a pair (image, label)."
                )
            yield sample[0], sample[1]
        return
    image = _column(columns, IMAGE_COLUMNS, "images")
    label = _column(columns, LABEL_COLUMNS, "labels")
    for row in data:
        yield row[image], row[label]


def _column(columns: Sequence[str], known: Sequence[str], what: str) -> str:
    for name in known:
        if name in columns:
            return name
    raise ValueError(
        f"the data set has columns {', '.join(columns)}: none holds {what}. Rename one "
        f"to {known[0]}, or give (images, labels)."
    )


def _as_sample(image: Any) -> Tensor:
    """The pixels of one image as a tensor (C, H, W), uint8 or float32."""
    if isinstance(image, Image.Image):
        array = torch.from_numpy(np.array(in_channels(image, 1 if image.mode in GREY else 3)))
        return array[None] if array.ndim == 2 else array.permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(f"an image is {type(image).__name__}: expected a PIL image, a tensor or an array.")
    return pixels_of(image[None] if image.ndim == 3 else image[None, None])[0]


def _as_label(label: Any, position: int) -> int:
    value, shown = label, f"{label!r:.60}"
    if isinstance(label, Tensor | np.ndarray | np.generic):
        shown = f"of shape {tuple(label.shape)}, {label.dtype}"
        value = label.item() if label.shape in ((), (1,)) else label
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"the label of sample {position} is {shown}: expected one class index.")
    return int(value)


def _allocate(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    count = int(np.prod(shape))
    if count * dtype.itemsize <= IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    place = None if folder is None else next(path for path in (folder, *folder.parents) if path.is_dir())
    # The file can lose its name at once: a process that has mapped it keeps its content.
    with NamedTemporaryFile(dir=place, prefix="images-", suffix=".raw") as file:
        return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)


def _class_names(data: Any) -> Sequence[str] | None:
    """The class names that a data set of torchvision or Hugging Face holds; None where it holds none."""
    names = getattr(data, "classes", None)
    if names is None and hasattr(data, "features"):
        label = next((data.features[name] for name in LABEL_COLUMNS if name in data.features), None)
        names = getattr(label, "names", None)
    return None if names is None else [str(name) for name in names]


def _name_of(data: Any) -> str:
    return "tensors" if isinstance(data, tuple | list) else type(data).__name__
