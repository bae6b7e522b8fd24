"""The classes that a trained model sees in image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .. import devices
from ..data.decoding import decode
from ..data.folder_layout import image_files
from ..data.parts_folder import IMAGES, TABLE
from ..data.transforms import as_floats
from ..errors import UserError
from .named_models import NamedModel, open_each

MEAN = "mean"  # the name of the averaged answer of several runs


@dataclass(frozen=True)
class Prediction:
    """The class that a model sees in an image, and the file of the image, if it came from one.

    Of a folder of several runs ``run`` says which of them answers; MEAN is the class of the largest mean probability.
    That answer is of an ensemble, whose accuracy and robustness are those of no single run.
    """

    file: Path | None
    label: str
    probability: float
    run: str | None = None


def predict(
    target: str, images: Sequence[Path], device: str = "auto", *, size: int | None = None
) -> list[Prediction]:
    """The most probable class of each image file; of a folder of several runs by each of them, and by their mean.

    Folders stand for the image files in and below them. Hidden files and files of other types are skipped.

    Args:
        target: one of ``named_models.FORMS``, or a folder of seed-* runs; of a run its best weights.
        images: image files, and folders of them.
        device: the device to compute on.
        size: the side in pixels to which images are resized and cropped, for models that do not say theirs.
    """
    return predict_files(open_each(target), files_of(images), devices.resolve(device), size)


def predict_files(
    models: Sequence[NamedModel], files: Sequence[Path], place: torch.device, size: int | None
) -> list[Prediction]:
    """The answers of opened models to image files."""
    answers = []
    for named in models:
        named.model.to(place).eval()
    for file in files:
        pixels = as_floats(read_file(models[0], file, size)[None].to(place))
        with torch.no_grad():
            probabilities = [named.model(pixels).softmax(dim=1).cpu() for named in models]
        answers += name_answers(models, probabilities, models[0].classes, [file])
    return answers


def name_answers(
    models: Sequence[NamedModel],
    probabilities: Sequence[Float[Tensor, "b k"]],
    classes: Sequence[str] | None,
    files: Sequence[Path | None],
) -> list[Prediction]:
    """For each image the answer of each model, and where there are several that of their mean."""
    answered = [(named.run, each) for named, each in zip(models, probabilities, strict=True)]
    if len(answered) > 1:
        answered.append((MEAN, torch.stack(list(probabilities)).mean(dim=0)))
    predictions = []
    for number, file in enumerate(files):
        for run, each in answered:
            best = int(each[number].argmax())
            label = str(best) if classes is None else classes[best]
            predictions.append(Prediction(file, label, float(each[number, best]), run))
    return predictions


def files_of(images: Sequence[Path]) -> list[Path]:
    """Image files by name, where folders stand for those in and below them, and a folder of parts for its images.

    Raises:
        UserError: there are none.
    """
    files = []
    for path in images:
        annotated = (path / TABLE).is_file()  # the masks beside the images are no images
        files += image_files(path / IMAGES if annotated else path) if path.is_dir() else [path]
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
