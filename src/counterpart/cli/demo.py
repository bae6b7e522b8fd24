"""Show the whole way on a small data set: train three classifiers of digits, evaluate them, and write a report.

They are trained by adversarial training, by PART, and by PART's control with equal mean radius, on the handwritten
digits that come with scikit-learn. Runs that are finished are reused.
"""

import argparse
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..config import resolve, settings
from ..errors import UserError
from ..recipes import load
from ..terminal import show

SETTINGS: Collection[str] = tuple(key for key, _ in settings() if key not in ("name", "model.normalisation"))
RECIPES = ("digits/at", "digits/part", "digits/part-uniform")
FULL_SEEDS = (0, 1, 2)
QUICK = 40  # the images that AutoAttack meets in the quick demo


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--full",
        action="store_true",
        help="Train three seeds of each, and run AutoAttack on all test images.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Train, evaluate and report. The address of the page is printed last."""
    home, n = ("runs/demo-full", None) if arguments.full else ("runs/demo", QUICK)
    layers = ({"runs": home, "evaluate": {"attacks": "pgd,autoattack", "n": n}}, settings)
    configs = [resolve(load(recipe), *layers, source=recipe) for recipe in RECIPES]
    from .. import jobs
    from ..report import write_report

    # Training wants one thread on images so small; AutoAttack's larger batches keep two busy.
    judging = {} if "threads" in settings else {"threads": min(2, os.cpu_count() or 1)}
    folders: list[Path] = []
    for config in configs:
        trained = jobs.train_seeds(config, FULL_SEEDS) if arguments.full else [jobs.train(config)]
        if not all(outcome.finished for outcome in trained):
            raise UserError("train.stop_after ended the demo; the same command continues.")
        folder = config.runs / str(config.name)
        jobs.evaluate(
            str(folder),
            {
                **judging,
                "device": config.device,
                "wait": config.wait,
                "evaluate": config.evaluate.model_dump(),
            },
        )
        folders.append(folder)
    page = write_report(folders)
    show("Three models trained and judged. The report:", page.resolve().as_uri())
    return 0
