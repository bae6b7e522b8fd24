"""The classes that a trained model sees in image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import devices
from ..data.decoding import decode
from ..data.folder_layout import image_files
from ..data.transforms import as_floats
from ..errors import UserError
from ..rundir import RunDir
from .stored_models import load_run


@dataclass(frozen=True)
class Prediction:
    """The class that a model sees in an image, and the file of the image, if it came from one."""

    file: Path | None
    label: str
    probability: float


def predict(target: str, images: Sequence[Path], device: str = "auto") -> list[Prediction]:
    """The most probable class of each image file, by the best weights of a run.

    Folders stand for the image files in and below them. Hidden files and files of other types are skipped.

    Images are resized and cropped to the size that the model was trained at, and read as grey where it learned from
    grey images.
    """
    run, place = RunDir(Path(target)), devices.resolve(device)
    model, about = load_run(run, "best")
    model.to(place).eval()
    files = [f for path in images for f in (image_files(path) if path.is_dir() else [path])]
    if not files:
        raise UserError("no images: give image files, or a folder that holds some.")
    answers = []
    for file in files:
        pixels = decode(file, about["model"]["image_size"], channels=about["model"]["in_channels"])
        with torch.no_grad():
            probabilities = model(as_floats(pixels[None].to(place))).softmax(dim=1)[0]
        best = int(probabilities.argmax())
        answers.append(Prediction(file, about["classes"][best], float(probabilities[best])))
    return answers
