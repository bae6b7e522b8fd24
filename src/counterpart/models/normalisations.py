"""How published networks normalise images, by their file, by what is known of it, or by what the user says."""

import re
from pathlib import Path

import torch
from torch import Tensor

from ..catalogue import PublishedModel
from ..errors import UserError, nearest
from .normalize import ImageClassifier

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, per channel or one number for all."""

NORMALISATIONS: dict[str, Normalisation] = {
    "none": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def normalisation_of(row: PublishedModel) -> Normalisation | None:
    """The mean and standard deviation that a published model's images are normalised by.

    None where the file or the network holds them, or the network is not here.
    """
    if row.normalisation in ("", "file", "network"):
        return None
    if row.normalisation in NORMALISATIONS:
        return NORMALISATIONS[row.normalisation]
    mean, std = (tuple(map(float, half.split())) for half in row.normalisation.split("/"))
    return mean, std


def check_name(name: str | None) -> None:
    """Refuse the name of a normalisation that is not known."""
    if name is not None and name not in NORMALISATIONS:
        raise UserError(f"no normalisation is called {name!r}. {nearest(name, NORMALISATIONS)}")


def set_normalisation(
    model: ImageClassifier,
    architecture: str,
    file: Path,
    in_file: tuple[Tensor, Tensor] | None,
    fronted: bool,
    asked: str | None,
    row: PublishedModel | None = None,
) -> str:
    """Set the model's mean and standard deviation, and say in a sentence where they come from.

    Args:
        model: the network, built for the file's number of classes and channels.
        architecture: its name.
        file: names the case.
        in_file: mean and standard deviation that the file holds.
        fronted: whether the network stood behind a layer without tensors, which may have normalised.
        asked: the user's choice, a key of ``NORMALISATIONS``.
        row: the published model that it is, if it is one.
    """
    classes, deepmind = model.num_classes, architecture.startswith("dm-")
    if in_file is not None and asked is not None:
        raise UserError(
            f"{file} holds its own mean and standard deviation: leave normalisation {asked!r} out."
        )
    if fronted and deepmind:
        raise UserError(
            f"{file} has names that start with 1., so it normalises before a network that normalises itself: "
            "this is not supported. Use module:function."
        )
    if in_file is not None:
        mean, std = (tuple(float(value) for value in tensor.flatten()) for tensor in in_file)
        source = "which the file holds"
    elif asked is not None:
        (mean, std), source = NORMALISATIONS[asked], f"as asked for ({asked})"
    elif row is not None and (known := normalisation_of(row)) is not None:
        (mean, std), source = known, f"as RobustBench does for {row.name}"
    elif deepmind and classes in (10, 100):
        mean, std = NORMALISATIONS[f"cifar{classes}"]
        source = f"as DeepMind's networks do on CIFAR-{classes}; on other data say which normalisation"
    elif deepmind or fronted:
        reason = (
            "DeepMind's networks normalise"
            if deepmind
            else "its names start with 1., so something stood before"
        )
        raise UserError(
            f"{file} does not say how its images were normalised, and {reason}: give the normalisation, one of "
            f"{', '.join(NORMALISATIONS)}."
        )
    elif architecture.startswith("timm/"):
        return f"images are normalised as timm does for {architecture}."
    else:
        return (
            "images enter as they are, in [0, 1]: the file holds no mean and standard deviation, and TRADES, MART "
            "and PART train so. If it was trained otherwise, give the normalisation."
        )
    channels = model.in_channels
    if {len(mean), len(std)} - {1, channels}:
        raise UserError(
            f"{file}: mean and standard deviation have {len(mean)} and {len(std)} values, the images {channels} "
            "channels. Give a normalisation that fits."
        )
    model.mean.copy_(torch.tensor(mean).view(-1, 1, 1))
    model.std.copy_(torch.tensor(std).view(-1, 1, 1))
    return f"images are normalised by mean {_short(mean)} and standard deviation {_short(std)}, {source}."


def _short(values: tuple[float, ...]) -> str:
    return re.sub(r",\)$", ")", str(tuple(round(value, 4) for value in values)))
