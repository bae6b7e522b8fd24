"""Predict the class of image files with a trained model."""

import argparse
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rundir import write_atomically
from ..spreadsheets import CsvWriter
from ..terminal import show

if TYPE_CHECKING:
    from ..jobs import Prediction

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="RUN", help="The run folder of the model.")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path, help="Image files, or folders of them."
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        type=Path,
        help="A file to write the names, labels and probabilities into as well.",
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps"),
        help="The device to compute on (default: auto, which takes a CUDA device if there is one).",
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Predict."""
    from ..jobs import predict

    images = [path.expanduser() for path in arguments.images]
    predictions = predict(arguments.target, images, arguments.device)
    for prediction in predictions:
        show(f"{prediction.probability:7.2%}  {prediction.label}  {prediction.file}")
    if arguments.csv:
        write_atomically(arguments.csv.expanduser(), partial(_write_csv, predictions=predictions))
    return 0


def _write_csv(path: Path, predictions: list["Prediction"]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(("file", "label", "probability"))
        for prediction in predictions:
            writer.writerow((prediction.file, prediction.label, prediction.probability))
