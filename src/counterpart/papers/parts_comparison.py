"""Do part models, part labels and budgets that follow the parts help? What no table of the part-model paper shows."""

from collections.abc import Mapping
from typing import Any

from .cells import Attacks, Column
from .experiments import Experiment, PaperRow
from .parts_generalised import CORRUPTED, GENERALISED
from .parts_tables import AUTOATTACK, SCALES

PGD_20: Attacks = [{"attack": "pgd", "steps": 20}]
COLUMNS: Mapping[str, Column] = {
    "PGD-20": PGD_20,
    "pixels": {"parts": "pixel accuracy clean"},
    "pixels PGD-20": {"parts": "pixel accuracy under PGD-20"},
    "mIoU": {"parts": "mIoU clean"},
    "mIoU PGD-20": {"parts": "mIoU under PGD-20"},
    **GENERALISED,
    "AA": AUTOATTACK,
    "AA and on parts": [
        *AUTOATTACK,
        *({"attack": "two-staged", "strategy": strategy} for strategy in ("random", "sorted")),
        {"attack": "single-staged"},
    ],
}

_TRADES = {"train": {"method": "trades", "beta": 1}}
_PART = {"train": {"method": "part"}}  # masks of class activation maps
_MODELS = {
    "Baseline": "baseline",
    "Downsampled": "downsampled",
    "Downsampled no labels": "downsampled-no-part-labels",
    "Bounding-Box": "bounding-box",
    "Bounding-Box no labels": "bounding-box-no-part-labels",
    "Auxiliary": "auxiliary",
}
_LEARNED = (  # what the labels bring, what the architecture brings, and both
    ("Downsampled", "Downsampled no labels"), ("Bounding-Box", "Bounding-Box no labels"),
    ("Downsampled no labels", "Baseline"), ("Bounding-Box no labels", "Baseline"),
    ("Downsampled", "Baseline"), ("Bounding-Box", "Baseline"), ("Auxiliary", "Baseline"),
)  # fmt: skip


def _comparison(dataset: str, title: str, scales: Mapping[str, Mapping[str, Any]]) -> Experiment:
    """Part models, with labels of parts and without, beside their baseline, by PGD and by TRADES; budgets by parts."""
    return Experiment(
        f"parts/{dataset}",
        f"Do part models and part labels help on {title}? Does a budget that follows the parts?",
        (
            *(PaperRow(name, recipe) for name, recipe in _MODELS.items()),
            PaperRow("part-budget", "part-budget"),
            PaperRow("part-budget uniform", "part-budget", changes={"mask": {"control": "uniform"}}),
            PaperRow("Downsampled PART", "downsampled", changes=_PART),
            PaperRow(
                "Downsampled PART uniform",
                "downsampled",
                changes={**_PART, "mask": {"control": "uniform"}},
            ),
            PaperRow("Baseline PART", "baseline", changes=_PART),
            PaperRow("Downsampled full resolution", "downsampled", changes={"model": {"resolution": "full"}}),
            *(PaperRow(f"{name} TRADES", recipe, changes=_TRADES) for name, recipe in _MODELS.items()),
        ),
        COLUMNS,
        notes=(
            "Not in the paper. A part model makes about three times its baseline's operations here, at this encoder "
            "and size: rows are equal in epochs, not in time.",
            "part-budget: Downsampled, whose background gets 7/8 of eps in training; uniform: its mean radius "
            "everywhere, so that only where the budget lies differs. PART: the same by class activation maps.",
            "AA and on parts: two-staged and single-staged attacks on what AutoAttack left, of part models. Auxiliary "
            "meets them without strategy sorted, since its class is not read from parts.",
            "Auxiliary: the baseline, which learns parts beside classes by heads that inference does without "
            "(arXiv 2407.10918). Without part labels it is the baseline.",
            "Pixels and mIoU: over all test images together, background included; under PGD-20 on the class, every "
            "image attacked to the end.",
        ),
        datasets=(dataset,),
        weights=("best", "last", "averaged"),
        pairs=(
            *_LEARNED,
            ("part-budget", "Downsampled"),
            ("part-budget", "part-budget uniform"),
            ("Downsampled PART", "Downsampled"),
            ("Downsampled PART", "Downsampled PART uniform"),
            ("part-budget", "Downsampled PART"),
            ("Downsampled PART", "Baseline PART"),
            ("Downsampled full resolution", "Downsampled"),
            *((f"{first} TRADES", f"{second} TRADES") for first, second in _LEARNED),
        ),
        scales={**{name: SCALES[name] for name in ("full", "full-ours", "smoke")}, **scales},
        corruptions=CORRUPTED,
        few={"small": {"autoattack": 60, "corruptions": 200}},
    )


SYNTHETIC = _comparison(
    "synthetic-parts",
    "drawn objects",
    {
        "small": {
            "data": {"size": 32, "padding": 2, "limit": 1500},
            # After five adversarial epochs trainings still differ by up to 14 points.
            "train": {"clean_epochs": 5, "epochs": 15, "validation_n": 120},
            "attack": {"eps": "16/255"},  # chosen on validation images, so that rows differ
            "mask": {"eps_low": "14/255"},
            "evaluate": {"n": 1000},
        }
    },
)
ADE = _comparison(
    "ade-parts",
    "real photographs",
    {
        "small": {
            "train": {"clean_epochs": 30, "epochs": 10},
            "evaluate": {"n": None},
        }
    },
)

EXPERIMENTS = (SYNTHETIC, ADE)
