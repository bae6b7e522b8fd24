"""How published networks normalise images, by their file, by what is known of it, or by what the user says."""

import re
from pathlib import Path

import torch
from torch import Tensor

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

_CIFAR10, _HALF = NORMALISATIONS["cifar10"], NORMALISATIONS["half"]
_CIFAR10_EXACT = (
    (0.4913997551666284, 0.48215855929893703, 0.4465309133731618),
    (0.24703225141799082, 0.24348516474564, 0.26158783926049628),
)
_CIFAR100_EXACT = (
    (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
    (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
)

# RobustBench's files that lack the normalisation which its code applies to them: by stem and number of classes.
ROBUSTBENCH: dict[tuple[str, int], Normalisation] = {
    ("Rice2020Overfitting", 10): _CIFAR10,
    ("Wong2020Fast", 10): _CIFAR10,
    ("Chen2020Efficient", 10): _CIFAR10,
    ("Kireev2021Effectiveness_Gauss50percent", 10): _CIFAR10,
    ("Kireev2021Effectiveness_AugMixNoJSD", 10): _CIFAR10,
    ("Kireev2021Effectiveness_RLAT", 10): _CIFAR10,
    ("Kireev2021Effectiveness_RLATAugMixNoJSD", 10): _CIFAR10,
    ("Kireev2021Effectiveness_RLATAugMix", 10): _CIFAR10,
    ("Rony2019Decoupling", 10): ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    ("Augustin2020Adversarial_34_10", 10): _CIFAR10_EXACT,
    ("Augustin2020Adversarial_34_10_extra", 10): _CIFAR10_EXACT,
    ("Hendrycks2019Using", 10): _HALF,
    ("Hendrycks2019Using", 100): _HALF,
    ("Hendrycks2020AugMix_WRN", 10): _HALF,
    ("Hendrycks2020AugMix_WRN", 100): _HALF,
    ("Rice2020Overfitting", 100): _CIFAR100_EXACT,
    ("Wu2020Adversarial", 100): _CIFAR100_EXACT,
    ("Chen2020Efficient", 100): ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


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
) -> str:
    """Set the model's mean and standard deviation, and say in a sentence where they come from.

    Args:
        model: the network, built for the file's number of classes and channels.
        architecture: its name.
        file: names the case: RobustBench's files are known by their stem.
        in_file: mean and standard deviation that the file holds.
        fronted: whether the network stood behind a layer without tensors, which may have normalised.
        asked: the user's choice, a key of ``NORMALISATIONS``.
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
    elif (file.stem, classes) in ROBUSTBENCH:
        (mean, std), source = ROBUSTBENCH[file.stem, classes], f"as RobustBench does for {file.stem}"
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
