"""The function that names what a model sees in images: ``predict``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..evaluation.answers import logits_of
from ..jobs import prediction
from ..jobs.named_models import NamedModel, open_each
from ..jobs.objects import understand_images
from .state import left_as_found

BATCH = 256


def predict(
    model: nn.Module | str | Path,
    images: Any,
    *,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> list[prediction.Prediction]:
    """The most probable class of each image.

    Args:
        model: any module from images in [0, 1] to logits, or what ``load`` takes, such as a run folder; also a folder
            of seed-* runs, each of which answers.
        images: a tensor or array (N, C, H, W) of 8-bit integers or of floats in [0, 1]. For a model with a name also
            image files, and folders of them.
        classes: the name of each class. A run has names of its own.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.

    Returns:
        The label and the probability of each image, in order, and the file where the image came from one. Of a folder
        of several runs, an answer of each run for each image, and then that of the mean of their probabilities (``run``
        says which): an ensemble, whose accuracy and robustness are those of no single run.

    Raises:
        UserError: an argument is not understood; the message is one line and says what was expected.
    """
    files = [images] if isinstance(images, str | Path) else images
    if isinstance(files, Sequence) and all(isinstance(file, str | Path) for file in files):
        if isinstance(model, nn.Module):
            raise UserError(
                "image files are read as a model with a name wants them: give a run folder, or images as a tensor."
            )
        return prediction.predict(str(model), [Path(file).expanduser() for file in files])
    models = [NamedModel(model)] if isinstance(model, nn.Module) else open_each(str(model))
    probabilities = [_probabilities(named.model, images, mean, std) for named in models]
    names = classes or models[0].classes
    count = probabilities[0].shape[1]
    if names is not None and len(names) != count:
        raise UserError(
            f"the model answers with {count} classes, and {len(names)} names were given: give one name for each class."
        )
    return prediction.name_answers(models, probabilities, names, [None] * len(probabilities[0]))


def _probabilities(
    model: nn.Module, images: Any, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Tensor:
    """The probability (N, K) of each class, on the CPU."""
    with left_as_found(model):
        classifier, pixels = understand_images(model, images, mean=mean, std=std)
        try:
            logits = torch.cat([logits_of(classifier, part).cpu() for part in torch.split(pixels, BATCH)])
        except ValueError as error:
            raise UserError(f"counterpart.predict: {error}") from error
    return logits.softmax(dim=1)
