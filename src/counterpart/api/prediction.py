"""The function that names what a model sees in images: ``predict``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..evaluation.answers import logits_of
from ..jobs import prediction
from ..jobs.named_models import open_model
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
        model: any module from images in [0, 1] to logits, or what ``load`` takes, such as a run folder.
        images: a tensor or array (N, C, H, W) of 8-bit integers or of floats in [0, 1]. For a model with a name also
            image files, and folders of them.
        classes: the name of each class. A run has names of its own.
        mean: the value of each channel to subtract from the images, for a model that wants normalised ones.
        std: the value of each channel to divide by after that, for a model that wants normalised images.

    Returns:
        The label and the probability of each image, in order, and the file where the image came from one.

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
    network, known = (model, None) if isinstance(model, nn.Module) else open_model(str(model))
    names = classes or known
    with left_as_found(network):
        classifier, pixels = understand_images(network, images, mean=mean, std=std)
        try:
            logits = torch.cat([logits_of(classifier, part).cpu() for part in torch.split(pixels, BATCH)])
        except ValueError as error:
            raise UserError(f"counterpart.predict: {error}") from error
    if names is not None and len(names) != logits.shape[1]:
        raise UserError(
            f"the model answers with {logits.shape[1]} classes, and {len(names)} names were given: "
            "give one name for each class."
        )
    best = logits.softmax(dim=1).max(dim=1)
    labels = [str(k) if names is None else names[k] for k in best.indices.tolist()]
    return [prediction.Prediction(None, *pair) for pair in zip(labels, best.values.tolist(), strict=True)]
