"""The main job on embedded real images: train three digit classifiers, evaluate them, and report.

Adversarial training, PART, and PART's matched-mean control, side by side on scikit-learn's handwritten digits.
Runs that are finished are reused.
"""

import argparse
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..config import resolve, settings
from ..errors import UserError
from ..recipes import load

SETTINGS: Collection[str] = tuple(key for key, _ in settings() if key not in ("name", "model.normalisation"))
RECIPES = ("digits/at", "digits/part", "digits/part-uniform")
FULL_SEEDS = (0, 1, 2)
QUICK = 40  # images that all of AutoAttack meets in the quick demo


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--full", action="store_true", help="three seeds of each, AutoAttack on all test images"
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Train, evaluate, report; the page's address comes last."""
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
        if not all(one.finished for one in trained):
            raise UserError("train.stop_after ended the demo; the same command continues.")
        folder = config.runs / str(config.name)
        jobs.evaluate(
            str(folder), {**judging, "device": config.device, "evaluate": config.evaluate.model_dump()}
        )
        folders.append(folder)
    page = write_report(folders)
    print(f"Three models trained and judged. The report:\n{page.resolve().as_uri()}")
    return 0
