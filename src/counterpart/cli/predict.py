"""Name what a trained model sees in image files."""

import argparse
import csv
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rundir import write_atomically

if TYPE_CHECKING:
    from ..jobs import Prediction

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="RUN", help="a run folder")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path, help="image files, or folders of them"
    )
    parser.add_argument(
        "--csv", metavar="FILE", type=Path, help="write file, label and probability here as well"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Predict."""
    from ..jobs import predict

    images = [path.expanduser() for path in arguments.images]
    predictions = predict(arguments.target, images, arguments.device)
    for one in predictions:
        print(f"{one.probability:7.2%}  {one.label}  {one.file}")
    if arguments.csv:
        write_atomically(arguments.csv.expanduser(), partial(_write_csv, predictions=predictions))
    return 0


def _write_csv(path: Path, predictions: list["Prediction"]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "probability"))
        writer.writerows((one.file, one.label, one.probability) for one in predictions)
