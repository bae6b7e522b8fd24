"""What adversarial training costs and brings with one step (N-FGSM) in place of ten, with PART's masks and without."""

from typing import Any

from .cost import seconds_of_training
from .experiments import SCALES, Experiment, PaperRow
from .pixel_tables import MAIN, MM_NOTE

_PGD_10 = {"steps": 10, "step_size": "2/255"}  # at scale small, too
_N_FGSM = {"generation": "n-fgsm"}
_FGSM = {**_N_FGSM, "noise": 0}
_AVERAGE = {"full": 0.995, "full-ours": 0.995, "small": 0.99, "smoke": 0.9}


def _changes(scale: str) -> dict[str, Any]:
    """The settings of a scale, with averaged weights beside the others."""
    settings = SCALES[scale]
    return {**settings, "train": {**settings.get("train", {}), "ema": _AVERAGE[scale]}}


SINGLE_STEP = Experiment(
    "pixel/single-step",
    "One step in place of ten: adversarial training and PART by N-FGSM",
    (
        PaperRow("AT", "at", changes={"attack": _PGD_10}),
        PaperRow("AT N-FGSM", "at", changes={"attack": _N_FGSM}),
        PaperRow("AT FGSM", "at", changes={"attack": _FGSM}),
        PaperRow("PART", "part", changes={"attack": _PGD_10}),
        PaperRow("PART N-FGSM", "part", changes={"attack": _N_FGSM}),
    ),
    {**MAIN, "seconds of training": seconds_of_training},
    notes=(
        "Not in the paper. N-FGSM: de Jorge et al. 2022, arXiv 2202.01181; noise of twice the radius, one step of the "
        "radius, no projection. Published for ResNet-18 on CIFAR-10 in 30 epochs (their figure 1) near PGD-10's "
        "robustness at a quarter of its cost.",
        "AT FGSM is N-FGSM without noise: the control that catastrophic overfitting can strike. Its doubt stands "
        "beside its numbers where it did.",
        "Averaged: an exponential average with decay 0.99 at scale small, 0.995 at full, which validation sees and "
        "the best epoch is chosen by.",
        "Seconds of training include validation, and compare where nothing else ran beside.",
        MM_NOTE,
    ),
    pairs=(
        ("AT N-FGSM", "AT"),
        ("PART N-FGSM", "PART"),
        ("PART N-FGSM", "AT N-FGSM"),
    ),
    scales={scale: _changes(scale) for scale in _AVERAGE},
    few={scale: {"autoattack": 1000} for scale in ("small", "full", "full-ours")},
    weights=("last", "best", "averaged"),
)

EXPERIMENTS = (SINGLE_STEP,)
