"""The classes that a trained model sees in image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from .. import devices
from ..data.decoding import decode
from ..data.folder_layout import image_files
from ..data.transforms import as_floats
from ..errors import UserError
from .named_models import NamedModel, open_named


@dataclass(frozen=True)
class Prediction:
    """The class that a model sees in an image, and the file of the image, if it came from one."""

    file: Path | None
    label: str
    probability: float


def predict(
    target: str, images: Sequence[Path], device: str = "auto", *, size: int | None = None
) -> list[Prediction]:
    """The most probable class of each image file.

    Folders stand for the image files in and below them. Hidden files and files of other types are skipped.

    Args:
        target: one of ``named_models.FORMS``; of a run its best weights.
        images: image files, and folders of them.
        device: the device to compute on.
        size: the side in pixels to which images are resized and cropped, for models that do not say theirs.
    """
    named, place = open_named(target), devices.resolve(device)
    model = named.model.to(place).eval()
    answers = []
    for file in files_of(images):
        pixels = read_file(named, file, size)
        with torch.no_grad():
            probabilities = model(as_floats(pixels[None].to(place))).softmax(dim=1)[0]
        best = int(probabilities.argmax())
        label = str(best) if named.classes is None else named.classes[best]
        answers.append(Prediction(file, label, float(probabilities[best])))
    return answers


def files_of(images: Sequence[Path]) -> list[Path]:
    """Image files by name, where folders stand for those in and below them.

    Raises:
        UserError: there are none.
    """
    files = [file for path in images for file in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise UserError("no images: give image files, or a folder that holds some.")
    return files


def read_file(named: NamedModel, file: Path, size: int | None = None) -> UInt8[Tensor, "c h w"]:
    """An image file as a model takes it: resized, cropped and in its number of channels.

    Raises:
        UserError: the model does not say how large its images are, and no size is given.
    """
    if size is None and named.prepare is not None:
        return decode(file, prepare=named.prepare)
    side = size or named.size
    if side is None:
        raise UserError(
            "this model does not say how large its images are: give their side in pixels, as --size 224."
        )
    return decode(file, side, channels=named.channels or 3)
