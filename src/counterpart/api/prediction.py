"""Name what a model sees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..evaluation.accuracy import logits_of
from ..jobs import prediction
from ..jobs.objects import open_model, understand_images
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
        model: any module from images in [0, 1] to logits, or a run folder.
        images: a tensor or array (N, C, H, W), 8-bit or floats in [0, 1]; or, for a run folder, image files and folders
            of them.
        classes: name of each class; a run has its own.
        mean: one value for each channel, where the model wants normalised images.
        std: likewise.

    Returns:
        Label and probability of each, in order; of image files also the file.

    Raises:
        UserError: what is not understood, in one line.
    """
    files = [images] if isinstance(images, str | Path) else images
    if isinstance(files, Sequence) and all(isinstance(file, str | Path) for file in files):
        if isinstance(model, nn.Module):
            raise UserError(
                "image files are read as a run was trained to: give a run folder, or images as a tensor."
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
            f"the model answers with {logits.shape[1]} classes, and {len(names)} names were given."
        )
    best = logits.softmax(dim=1).max(dim=1)
    labels = [str(k) if names is None else names[k] for k in best.indices.tolist()]
    return [prediction.Prediction(None, *pair) for pair in zip(labels, best.values.tolist(), strict=True)]
