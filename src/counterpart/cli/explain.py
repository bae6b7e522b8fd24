"""Show what a model looks at in image files, where a mask lets an attacker move, and how far an attack moves that.

It prints a line for each image. With --out it writes pictures, arrays, a table and a page of them.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..dotted_names import flatten
from ..errors import UserError
from ..terminal import show
from .settings import count, declare_model_and_images

SETTINGS: Collection[str] = (
    "attack.eps", "mask.eps_low", "mask.rule", "mask.quantile", "mask.map", "mask.layer",
    "mask.map_class", "seed",
)  # fmt: skip
SECTIONS = ("mask", "attack")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    declare_model_and_images(parser)
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="A folder to make of everything.")
    parser.add_argument(
        "--steps", type=count, default=20, help="The number of steps of the attack (default: 20)."
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Explain."""
    out = None if arguments.out is None else arguments.out.expanduser()
    if out is not None and out.exists():  # refused before anything is computed
        raise UserError(f"{out} exists: name a folder that does not, or remove it.")
    from ..api.explained_files import explain_files, lines_of_explanation, lines_of_summary

    images = [path.expanduser() for path in arguments.images]
    explanation, names, classes = explain_files(
        arguments.target, images, device=arguments.device, size=arguments.size, steps=arguments.steps,
        changes=flatten(settings),
    )  # fmt: skip
    show(*lines_of_explanation(explanation, names, classes))
    if len(names) > 1:
        show(*lines_of_summary(explanation, classes))
    if out is not None:
        explanation.save(out, names=names, classes=classes)
        show(
            f"{out / 'index.html'} shows the images; arrays.npz, explanation.csv and classes.csv hold the numbers."
        )
    return 0
