"""Does it matter where PART's budget lies? Asked at doses at which an answer can be seen.

At the paper's eps_low, 7/255, a mask moves an eighth of the budget, and PART differs from the mean of its masks on
fewer images than from another training of its own. Here masks move a half of it and all of it, in every epoch.
"""

from collections.abc import Mapping
from typing import Any

from .cells import Column
from .experiments import SCALES, Experiment, PaperRow, PrimaryContrast
from .pixel_tables import MAIN, MM_NOTE, half_of_the_gain

_DOSES: Mapping[str, str | int] = {"4/255": "4/255", "0": 0}
_MASKS: Mapping[str, Mapping[str, Any]] = {
    "own mask": {},
    "its mean": {"control": "uniform"},
    "another image's mask": {"control": "shuffled"},
    "inverse": {"control": "inverse"},
}


def _at(level: int) -> PaperRow:
    """Adversarial training at a radius, of the frontier.

    The radius is said of 8/255 as well, so that its run is not another experiment's, which averages no weights.
    """
    return PaperRow(f"AT {level}/255", "at", changes={"attack": {"eps": f"{level}/255"}})


def _masked(dose: str, name: str, mask: Mapping[str, Any]) -> PaperRow:
    """A row whose radius is ``dose`` where its mask is low, from the first epoch on."""
    return PaperRow(
        f"{dose} {name}", "part", changes={"mask": {"eps_low": _DOSES[dose], "burn_in": 0, **mask}}
    )


def _part_t(name: str, mask: Mapping[str, Any]) -> PaperRow:
    """A row of PART-T, at the paper's eps_low."""
    return PaperRow(name, "part-t", changes={"mask": {"burn_in": 0, **mask}})


_WHERE: Mapping[str, Any] = {"attacks": MAIN["PGD-20"], "n": 500, "draws": 1, "weights": "last"}
_COLUMNS: Mapping[str, Column] = {
    "natural of all": {"attacks": [], "n": None},
    **MAIN,
    "where": {"where": "bottom - top", **_WHERE},
    "where other": {"where": "other - top", **_WHERE},
}
_OF_MASKS = (
    *((f"{dose} own mask", f"{dose} {other}") for dose in _DOSES for other in _MASKS if other != "own mask"),
    ("PART-T", "PART-T its mean"),
)
_CONTROL = ("0 quadrant", "AT 6/255")
_GAIN = half_of_the_gain("PART-T", "TRADES")
_PRIMARY = PrimaryContrast("4/255 own mask", "4/255 its mean", "natural of all", margin=0.006)

DOSE = Experiment(
    "pixel/dose",
    "Does it matter where the budget lies? Masks of two doses beside their means and other masks",
    (
        *(_at(level) for level in (5, 6, 7, 8)),
        *(_masked(dose, name, mask) for dose in _DOSES for name, mask in _MASKS.items()),
        _part_t("PART-T", {}),
        _part_t("PART-T its mean", {"control": "uniform"}),
        _masked("0", "quadrant", {"rule": "quadrant"}),
    ),
    _COLUMNS,
    evaluate={"eps": "8/255"},
    notes=(
        "Not in the paper. Stated before the first row was judged: the question is whether 4/255 own mask differs "
        "from 4/255 its mean in natural accuracy; 0.6 points either way would matter, half of what the paper's "
        "strongest claim gains (PART-T over TRADES: +1.20 natural, +0.92 AutoAttack). Natural accuracy, because it "
        "can be judged on all 10,000 test images, which can decide 0.6 points; 1,000 images cannot decide the 0.46 "
        "of AutoAttack. 4/255, because the mask moves four times what the paper's does, and every pixel is still "
        "attacked. The other rows and columns are descriptive.",
        "A difference of natural accuracy is no gain by itself: a smaller budget buys it with robustness. AT at 5, "
        "6, 7 and 8/255 is the frontier that a gain has to lie above, in natural accuracy and in AA or MM at once. "
        "All rows are judged at 8/255.",
        "0 quadrant is the positive control: no attack on a quarter of the image, the same in all images, 8/255 on "
        "the rest. Its mean radius is that of AT 6/255. Where these two do not differ, this experiment sees "
        "nothing, and no null of it counts.",
        "Mean radii: own mask, its mean and another image's mask have the same. Inverse has 12/255 less it at "
        "eps_low 4/255 and 8/255 less it at 0 (flat maps aside), so that it compares with AT at that radius and not "
        "with the own mask alone. The records of the epochs say mean_radius.",
        "Burn-in 0: masks in every epoch. PART-T has the paper's eps_low, 7/255, all other masks the one in their "
        "name.",
        "where: the area between two curves of accuracy under PGD-20 against the share of the image that may move, "
        "the bottom of the map less its top, on the model's own Grad-CAM; where other: the top of another image's "
        "map less the top of its own. Does a mask change where a model is robust, even if not how robust it is?",
        "Averaged: an exponential average with decay 0.99 at scale small (78 steps an epoch), 0.995 at full. It "
        "follows the training and changes nothing in it; the best epoch is chosen by it.",
        "Core-hours of scale small (one thread of a 2-core AMD EPYC, Zen 5 with AVX512-BF16): 15 rows of 3 seeds "
        "are 45 trainings of 7.5 core-minutes, 9 of PART-T's, so 6. Natural accuracy, PGD-20 and MM take 1.7 "
        "core-minutes for each of three weights, so 4; where, of the last, 3, so 2. AutoAttack takes 1.9 "
        "core-seconds an image, so 23 for 1,000 images and one kind of weights, 70 for three: --columns leaves it "
        "out or asks for it.",
        "Scale full, for a GPU: ResNet-18 makes 1.1 GFLOP in a pass, a training step of PGD-10 with its attack 26 "
        "an image, and 80 epochs of 49,000 images 1.0e17. A card that sustains 200 TFLOP/s in bf16 takes 8.5 "
        "minutes, one ten-minute slot for each training and one for its evaluation; 45 trainings, so 15 hours. That "
        "is arithmetic and was not measured: at batches of 128 launches may take longer than their work. A slot "
        "that ends early loses nothing: --rows ROW --seeds 0 --train.stop-after 9m, and the same command goes on.",
        MM_NOTE,
    ),
    pairs=(*_OF_MASKS, _CONTROL),
    primary=_PRIMARY,
    margins={pair: {**_GAIN, "natural of all": _GAIN["natural"]} for pair in _OF_MASKS},
    scales={
        "full": {
            "data": {"validation": 0.02},
            "train": {"ema": 0.995},
            "evaluate": {"n": 2000},
        },
        "full-ours": {"train": {"ema": 0.995}, "evaluate": {"n": 2000}},
        "small": {**SCALES["small"], "train": {**SCALES["small"]["train"], "ema": 0.99}},
        "smoke": {**SCALES["smoke"], "train": {**SCALES["smoke"]["train"], "ema": 0.9}},
    },
    few={scale: {"autoattack": 1000} for scale in ("small", "full", "full-ours")},
    weights=("last", "best", "averaged"),
)

EXPERIMENTS = (DOSE,)
