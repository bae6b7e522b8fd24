"""Measure the accuracy of a model under common corruptions: the 19 of CIFAR-10-C or the 15 of ImageNet-C.

The images are corrupted here, or read from the official files. Settings of ``corruptions`` and ``evaluate`` may be
written without their section: --severities 1,3,5 --n 1000. The same command continues what was stopped.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..config import settings
from ..terminal import show
from . import evaluate

_SHARED = ("evaluate.protocol", "evaluate.split", "evaluate.weights", "evaluate.n", "evaluate.batch_size")
SETTINGS: Collection[str] = (
    *(key for key, _ in settings() if key.startswith("corruptions.")),
    *(key for key in evaluate.SETTINGS if not key.startswith("evaluate.") or key in _SHARED),
)
SECTIONS = ("corruptions", "evaluate")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="A model, as counterpart evaluate takes it.")


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Evaluate."""
    evaluate.refuse_outside_settings(arguments.target, settings)
    from .. import distributed, jobs

    judged = jobs.evaluate_corruptions(arguments.target, settings)
    if distributed.is_main():
        show(f"Next: counterpart report {' '.join(str(outcome.run.path) for outcome in judged)}")
    distributed.stop()
    return 0
