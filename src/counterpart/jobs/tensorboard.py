"""TensorBoard as a tracker: scalars, pictures and the configuration, in RUN/tensorboard."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.opening import open_image
from ..errors import UserError
from ..pictures import Pictures
from ..records import Record
from ..rundir import RunDir

FOLDER = "tensorboard"  # within the folder of a run
SHOWN = 16  # the most images of a panel that are logged
# The details that tell two measurements apart.
OF_A_MEASUREMENT = ("evaluation", "audit", "where", "corruptions_key")
TAGS = {
    "loss": "training/loss",
    "accuracy": "training/accuracy",
    "lr": "training/lr",
    "validation_clean": "validation/clean",
    "validation_robust": "validation/robust",
    "validation_masked": "validation/masked",
    "validation_miou": "validation/miou",
}


class TensorBoard:
    """Writes records into event files, one folder for each run, which ``tensorboard --logdir runs`` shows.

    The step of an epoch is how many epochs are done after it. Results of evaluations stand at step 0, under the name of
    the record and the key of the evaluation.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"--track tensorboard needs TensorBoard ({error}): python -m pip install 'counterpart[tensorboard]'."
            ) from error
        self._make: Any = SummaryWriter
        self._writers: dict[Path, Any] = {}

    def __call__(self, record: Record, run: Path | None) -> None:
        """Log a record of a run; of what is in no run folder there is nothing to log."""
        if run is None:
            return
        writer = self._writer(run)
        if record.kind == "epoch":
            done = record.details["epoch"] + 1
            for name, value in _numbers(record.details):
                writer.add_scalar(name, value, done)
        elif record.kind == "artifact":
            _log_pictures(writer, record, run)
        elif record.value is not None:
            writer.add_scalar(_tag(record), record.value, 0)
        writer.flush()

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()

    def _writer(self, run: Path) -> Any:
        """The writer of a run's folder, which begins with the configuration."""
        if run not in self._writers:
            RunDir(run).refuse_links_out(run / FOLDER)
            self._writers[run] = self._make(str(run / FOLDER))
            if RunDir(run).config_file.exists():  # a group of seeds has none
                text = json.dumps(RunDir(run).config(), indent=2)
                self._writers[run].add_text("config", f"```\n{text}\n```", 0)
        return self._writers[run]


def _tag(record: Record) -> str:
    """The name of a record and the key of the measurement that it belongs to."""
    for name in OF_A_MEASUREMENT:
        if name in record.details:
            return f"{record.name}/{record.details[name]}"
    return record.name


def _numbers(details: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The tags and the numbers of an epoch's details; parts have one each."""
    for name, value in details.items():
        if isinstance(value, Mapping):
            for part, number in value.items():
                yield f"{name}/{part}", float(number)
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch":
            yield TAGS.get(name, f"training/{name}"), float(value)


def _log_pictures(writer: Any, record: Record, run: Path) -> None:
    """Log the picture that a record names, or the images of a panel, clean and attacked."""
    file = run / str(record.details["file"])
    tag = _tag(record)
    if file.suffix == ".png":
        with open_image(file) as image:
            writer.add_image(tag, np.asarray(image.convert("RGB")), 0, dataformats="HWC")
    elif record.name == "panel":
        pictures = Pictures.read(file)
        writer.add_images(f"{tag}/clean", pictures.clean[:SHOWN].clip(0, 1), 0)
        writer.add_images(f"{tag}/attacked", pictures.adversarial[:SHOWN].clip(0, 1), 0)
