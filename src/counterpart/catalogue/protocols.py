"""The protocols of published benchmarks: the images, the budget and the attacks that a leaderboard's numbers stand for.

Source: RobustBench (Croce et al. 2021, arXiv 2010.09670), its repository at commit 78fcc9e of March 2025: ``data.py``
(which images, how they are prepared, which corruptions), ``eval.py`` (standard AutoAttack; the mean over corruptions
and severities) and ``model_info`` (the radius of each threat model).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .entries import Entry


@dataclass(frozen=True)
class ProtocolFacts:
    """What a protocol fixes.

    Attributes:
        command: the command that runs it: "evaluate" or "corruptions".
        data: the data set.
        threat: the threat model, as the benchmark calls it.
        n: the number of images.
        settings: the value of each setting that it gives. All others of ``data``, ``evaluate`` and ``corruptions``
            that could change a number are fixed at their defaults.
        source: where the facts come from.
        preparation: how files are resized and cropped, a key of ``PREPARATIONS``; "" where images are as they are. A
            published model with a preparation of its own keeps it, as in the benchmark.
    """

    command: str
    data: str
    threat: str
    n: int
    settings: Mapping[str, str]
    source: str
    preparation: str = ""


@dataclass(frozen=True)
class Squaring:
    """How the file of an image becomes the square that a network sees.

    Attributes:
        resize: the length in pixels to which the shorter side is resized; None to leave the size.
        crop: the side of the central square that is kept.
        interpolation: "bilinear" or "bicubic".
        squash: both sides are resized, whatever the aspect ratio.
    """

    resize: int | None
    crop: int
    interpolation: str = "bilinear"
    squash: bool = False


PREPARATIONS = {
    "Res256Crop224": Squaring(256, 224),
    "BicubicRes256Crop224": Squaring(256, 224, "bicubic"),
    "BicubicRes248Crop224": Squaring(248, 224, "bicubic"),
    "BicubicRes224Crop224": Squaring(224, 224, "bicubic"),
    "Res224Crop224": Squaring(224, 224),
    "Res224": Squaring(224, 224, squash=True),
    "Crop288": Squaring(None, 288),
}
"""By the names of RobustBench; those with 248, and with 224 twice, are timm's of models that it takes from timm."""

ROBUSTBENCH = "RobustBench, arXiv 2010.09670"
_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet"}
_IMAGES = {
    "cifar10": (10_000, "all 10,000 test images of CIFAR-10 in their order", "data.benchmarks:cifar_test"),
    "cifar100": (10_000, "all 10,000 test images of CIFAR-100 in their order", "data.benchmarks:cifar_test"),
    "imagenet": (5_000, "5,000 listed validation images of ImageNet", "data.benchmarks:listed_imagenet"),
}
_NORMS = {"Linf": "linf", "L2": "l2"}


def _attacked(data: str, threat: str, eps: str) -> Entry[ProtocolFacts]:
    n, images, code = _IMAGES[data]
    settings = {
        "data.name": data,
        "evaluate.split": "test",
        "evaluate.attacks": "autoattack",
        "evaluate.norm": _NORMS[threat],
        "evaluate.eps": eps,
        "evaluate.precision": "float32",
    }
    prepared = "Res256Crop224" if data == "imagenet" else ""
    return Entry(
        f"robustbench-{data}-{threat.lower()}", f"RobustBench {_TITLES[data]} {threat}", code,
        f"Standard AutoAttack at {threat} {eps} in float32, on {images}.",
        ProtocolFacts("evaluate", data, threat, n, settings, ROBUSTBENCH, prepared),
    )  # fmt: skip


def _corrupted(data: str) -> Entry[ProtocolFacts]:
    n, images, code = _IMAGES[data]
    settings = {
        "data.name": data,
        "evaluate.split": "test",
        "corruptions.names": "benchmark",
        "corruptions.severities": "1,2,3,4,5",
    }
    prepared = "Res256Crop224" if data == "imagenet" else ""
    return Entry(
        f"robustbench-{data}-corruptions", f"RobustBench {_TITLES[data]} corruptions", code,
        f"The mean accuracy over 15 corruptions at 5 severities, from the official files of {_TITLES[data]}-C, on "
        f"{images}.",
        ProtocolFacts("corruptions", data, "corruptions", n, settings, ROBUSTBENCH, prepared),
    )  # fmt: skip


_ENTRIES = (
    _attacked("cifar10", "Linf", "8/255"),
    _attacked("cifar100", "Linf", "8/255"),
    _attacked("imagenet", "Linf", "4/255"),
    _attacked("cifar10", "L2", "0.5"),
    _corrupted("cifar10"),
    _corrupted("cifar100"),
    _corrupted("imagenet"),
)
PROTOCOLS = {entry.key: entry for entry in _ENTRIES}
MISSING_PROTOCOLS = {
    "robustbench-imagenet-corruptions_3d": "nothing here reads ImageNet-3DCC, its 12 three-dimensional corruptions"
}
"""Protocols of the same benchmarks that cannot be run here, and why."""
