"""Train, or continue, a recipe or a YAML file of settings.

The run folder is RUNS/NAME, by default runs/<recipe>. The same command continues a run that was stopped.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..config import resolve, settings
from ..errors import UserError
from ..recipes import load
from ..terminal import show

SETTINGS: Collection[str] = tuple(
    key for key, _ in settings() if key not in ("model.normalisation", "evaluate.protocol", "evaluate.claim")
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "recipe", metavar="RECIPE", help="A built-in recipe such as cifar10/part, or a .yaml file."
    )
    parser.add_argument(
        "--seeds",
        metavar="0,1,2",
        type=_seeds,
        help="Train once with each of these seeds, and report mean and spread.",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Train."""
    config = resolve(load(arguments.recipe), settings, source=arguments.recipe)
    from .. import distributed, jobs

    trained = jobs.train_seeds(config, arguments.seeds) if arguments.seeds else [jobs.train(config)]
    if distributed.is_main():
        where = trained[-1].run.path.parent if arguments.seeds else trained[-1].run.path
        if all(outcome.finished for outcome in trained):
            show(f"Trained: {where}", f"Next: counterpart evaluate {where}")
        else:
            show(f"Out of time: {where} has a checkpoint. The same command continues.")
    distributed.stop()
    return 0


def _seeds(text: str) -> list[int]:
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UserError(
            f"--seeds {text!r} must be whole numbers with commas between them, such as 0,1,2."
        ) from None
