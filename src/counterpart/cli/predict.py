"""Predict the class of image files, and show what the model looks at."""

import argparse
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..rundir import write_atomically
from ..spreadsheets import CsvWriter
from ..terminal import show
from .settings import declare_model_and_images

if TYPE_CHECKING:
    from ..jobs import Prediction

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    declare_model_and_images(parser)
    parser.add_argument(
        "--csv",
        metavar="FILE",
        type=Path,
        help="A file to write the names, labels and probabilities into as well.",
    )
    parser.add_argument(
        "--maps",
        metavar="DIR",
        type=Path,
        help="A folder to write a picture of each image into, with the map of what the model looks at laid over it.",
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="The module at whose output --maps are drawn, such as layer3."
    )


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Predict."""
    from ..api.explained_files import predict_and_draw
    from ..report.class_names import called

    images = [path.expanduser() for path in arguments.images]
    folder = None if arguments.maps is None else arguments.maps.expanduser()
    predictions = predict_and_draw(
        arguments.target,
        images,
        device=arguments.device,
        size=arguments.size,
        folder=folder,
        layer=arguments.layer,
    )
    for prediction in predictions:
        who = "" if prediction.run is None else f"  ({prediction.run})"
        show(f"{prediction.probability:7.2%}  {called(prediction.label)}  {prediction.file}{who}")
    if arguments.csv:
        write_atomically(arguments.csv.expanduser(), partial(_write_csv, predictions=predictions))
    if folder is not None:
        show(f"Maps: {folder}")
    return 0


def _write_csv(path: Path, predictions: list["Prediction"]) -> None:
    several = any(prediction.run is not None for prediction in predictions)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = CsvWriter(file)
        writer.writerow(("file", "label", "probability", *(("run",) if several else ())))
        for prediction in predictions:
            row = (prediction.file, prediction.label, prediction.probability)
            writer.writerow((*row, prediction.run) if several else row)
