"""Figures of "Part-Based Models Improve Adversarial Robustness", Sitawarin et al. 2023.

Figures 1, 3, 7 and 8 are diagrams. A row of a plot is a point, "SERIES: POINT".
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from .experiments import Draw, Experiment, PaperRow
from .parts_generalised import CORRUPTED, GENERALISED, STAND_INS
from .parts_pictures import draw_found_parts, draw_labels
from .parts_tables import (
    AA_PUBLISHED,
    AUTOATTACK,
    BOTH_SUITES,
    DATA_SETS,
    DIFFERENCES,
    MAIN,
    SCALES,
    SUITES,
    TABLE_1,
    TABLE_7,
    TABLE_8,
    TABLE_9,
)  # fmt: skip
from .plots import draw_curves, draw_tradeoff


def _sweep(series: str, table: Experiment) -> list[PaperRow]:
    """PGD at the rate and decay of Table 1, then TRADES from little robustness to much."""
    [pgd] = (row for row in table.rows if row.name == "PGD lr 0.1 wd 0.0005")
    trades = [row for row in table.rows if row.name.startswith("TRADES")]
    [others] = (row for row in TABLE_1.rows if row.name == series)
    pgd = replace(pgd, recipe=others.recipe, changes={}, published={**others.published, **pgd.published})
    points = [("PGD", pgd), *((row.name.replace("TRADES beta", "TRADES"), row) for row in trades)]
    return [
        replace(row, name=f"{series}: {point}", published={d: _two(v) for d, v in row.published.items()})
        for point, row in points
    ]


def _two(published: Mapping[str, float]) -> dict[str, float]:
    return {c: value for c, value in published.items() if c in ("natural", "AA", AA_PUBLISHED)}


def _figure(
    number: int, title: str, rows: Sequence[PaperRow], draw: Draw, *notes: str, **options: Any
) -> Experiment:
    fields = {"columns": {}, "datasets": ("part-imagenet",), **options}
    rows = [
        replace(row, published={d: v for d, v in row.published.items() if d in fields["datasets"]})
        for row in rows
    ]
    notes = (*notes, *DIFFERENCES)
    return Experiment(f"parts/figure-{number}", title, rows, notes=notes, scales=SCALES, draw=draw, **fields)


BASELINE, DOWNSAMPLED, BOXES = (
    _sweep(name, table)
    for name, table in (("ResNet-50", TABLE_7), ("Downsampled", TABLE_8), ("Bounding-Box", TABLE_9))
)
SWEPT = "The paper prints the values of Part-ImageNet alone (Tables 7 to 9), and of the others one point (Table 1)."

FIGURE_2 = _figure(
    2, "Accuracy against robustness, of a part model and its baseline", [*BASELINE, *DOWNSAMPLED],
    partial(draw_tradeoff, columns=["AA"]),
    "The paper does not say which part model it draws: Downsampled here.",
    columns=MAIN,
)  # fmt: skip

FIGURE_4 = _figure(
    4, "Accuracy against robustness, of both part models and their baseline", [*BASELINE, *DOWNSAMPLED, *BOXES],
    partial(draw_tradeoff, columns=["AA", AA_PUBLISHED]),
    SWEPT, SUITES,
    datasets=DATA_SETS, **BOTH_SUITES,
)  # fmt: skip

FIGURE_6 = _figure(
    6, "Part labels on a share of the training images",
    [
        PaperRow(f"{series}: {share}", recipe, {}, {} if share == 100 else {"data": {"labelled": share / 100}})
        for series, recipe in (("Downsampled", "downsampled"), ("Bounding-Box", "bounding-box"))
        for share in (10, 30, 50, 70, 90, 100)
    ] + [PaperRow("ResNet-50: 0", "baseline")],
    partial(draw_curves, columns=["natural", "AA"], xlabel="images with part labels, %"),
    "The paper says 10 to 90 % and not which: 10, 30, 50, 70 and 90 here. It prints no values.",
    columns=MAIN,
)  # fmt: skip

FIGURE_9 = _figure(
    9, "Weights of the segmentation loss",
    [
        PaperRow(f"{series}: {c}", recipe, {}, {"train": {"c_seg": c}})
        for series, recipe in (("Downsampled", "downsampled"), ("Bounding-Box", "bounding-box"))
        for c in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ],
    partial(draw_tradeoff, columns=["AA"]),
    "The paper prints no accuracies. c_seg: the nine values of section 3.5.3; appendix D.2 says from 0 to 1.",
    columns=MAIN,
)  # fmt: skip

FIGURE_11 = _figure(
    11, "Accuracy beyond attacks against natural accuracy, of models under adversarial training",
    [replace(row, published={}) for row in (*BASELINE, *DOWNSAMPLED, *BOXES)],
    partial(draw_tradeoff, columns=["corruptions", "backgrounds", "textures"], label="AA"),
    STAND_INS,
    "The paper prints no values.",
    columns={**GENERALISED, "AA": AUTOATTACK}, corruptions=CORRUPTED,
)  # fmt: skip

DRAWN = (
    "The paper shows its own draw of ten images and no numbers; a handful of images says nothing of a method."
)
_MODELS = (PaperRow("Downsampled", "downsampled"), PaperRow("Bounding-Box", "bounding-box"))
FIGURE_5 = _figure(
    5, "What the Bounding-Box part model sees, clean and attacked",
    [replace(_MODELS[1], published={"part-imagenet": {"pixels": 80.0, "pixels PGD-20": 70.0}})],
    draw_found_parts,
    DRAWN,
    "Published: the text of section 4 has pixel accuracies above 80 % on clean and about 70 % on attacked images.",
    columns={
        "pixels": {"parts": "pixel accuracy clean"},
        "pixels PGD-20": {"parts": "pixel accuracy under PGD-20"},
    },
)  # fmt: skip
FIGURE_12 = _figure(
    12, "What the Downsampled part model sees, clean and attacked", _MODELS[:1], draw_found_parts, DRAWN
)  # fmt: skip
FIGURE_13 = _figure(
    13, "What part models see on Cityscapes", _MODELS, draw_found_parts, DRAWN, datasets=("cityscapes",)
)  # fmt: skip
FIGURE_14 = _figure(
    14, "What part models see on PASCAL-Part", _MODELS, draw_found_parts, DRAWN, datasets=("pascal-part",)
)  # fmt: skip

FIGURE_10 = _figure(
    10, "Boxes and centroids instead of masks",
    (
        PaperRow("Segmentation", "downsampled"),
        PaperRow("Bounding boxes", "downsampled-boxes"),
        PaperRow("Centroids", "bounding-box-centroids"),
    ),
    draw_labels,
    columns=None,
)  # fmt: skip

EXPERIMENTS = (
    FIGURE_2, FIGURE_4, FIGURE_5, FIGURE_6, FIGURE_9, FIGURE_10, FIGURE_11, FIGURE_12, FIGURE_13, FIGURE_14,
)  # fmt: skip
