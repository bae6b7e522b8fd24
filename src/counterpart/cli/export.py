"""Write a model into one file that others read without Counterpart: a state dict, torch.export, ONNX or safetensors.

The file is compared with the model before it gets its name, and the lines of Python that load it are printed.
"""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..catalogue import EXPORT_FORMATS, export_format
from ..terminal import show
from . import evaluate

SETTINGS: Collection[str] = (
    "data.name", "data.root", "data.size", "data.channels", "data.class_map", "data.split_of", "evaluate.split",
    "evaluate.weights", "device", "threads", "runs", "name", "model.init", "model.normalisation",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="A model, as counterpart evaluate takes it.")
    parser.add_argument("--to", metavar="FILE", type=Path, required=True, help="The file to write.")
    parser.add_argument(
        "--format",
        choices=tuple(EXPORT_FORMATS),
        help="The format (default: the one that the name of the file says: .pt, .safetensors, .pt2 or .onnx).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Export."""
    evaluate.refuse_outside_settings(arguments.target, settings)
    file = arguments.to.expanduser()
    export_format(file, arguments.format)  # a wrong name is refused before anything heavy is imported
    from .. import jobs

    exported = jobs.export_named(arguments.target, settings, file, arguments.format)
    show(str(exported))
    show(f"Its classes and how it was checked are in {exported.description}. This loads it:", "")
    show(*exported.code.rstrip("\n").split("\n"))
    return 0
