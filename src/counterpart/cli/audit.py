"""Ask whether a model only looks robust because attacks on it fail: behaviours, each with a verdict."""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from . import evaluate
from .settings import count

SETTINGS: Collection[str] = evaluate.settings_without(
    "evaluate.attacks", "evaluate.individual", "evaluate.engine", "evaluate.save_images", "evaluate.precision",
    "evaluate.protocol", "evaluate.claim", *evaluate.RANDOM_ANSWERS, *evaluate.SAMPLE,
)  # fmt: skip
SECTIONS = ("evaluate",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="A model, as counterpart evaluate takes it.")
    parser.add_argument(
        "--steps", type=count, default=100, help="The steps of each iterative attack (default: 100)."
    )
    parser.add_argument(
        "--queries", type=count, default=2000, help="The queries of the Square attack (default: 2000)."
    )
    parser.add_argument(
        "--draws", type=count, default=100, help="The draws of the random search (default: 100)."
    )
    parser.add_argument(
        "--traced",
        type=count,
        default=64,
        help="The images whose attacks are traced, and that adversarial images are planted for (default: 64).",
    )
    parser.add_argument(
        "--points",
        type=count,
        default=999,
        help="The points inside a budget that a planted image is told from (default: 999, the paper's).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Audit."""
    evaluate.refuse_outside_settings(arguments.target, settings)
    from .. import distributed, jobs

    effort = {name: getattr(arguments, name) for name in ("steps", "queries", "draws", "traced", "points")}
    jobs.audit_named(arguments.target, settings, **effort)
    distributed.stop()
    return 0
