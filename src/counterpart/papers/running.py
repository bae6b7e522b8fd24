"""How the rows of an experiment are run: trained where they are not yet, evaluated, and stored as records.

A row is trained once per scale, seed and fold, and shared by every table that shows it.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from .. import jobs, locks
from ..catalogue import DATA_SETS
from ..config import Config, merge, plain, resolve
from ..errors import UserError
from ..recipes import load
from ..records import Record, file_hash, fingerprint, write
from ..rundir import RunDir
from .cells import Column, few, measure
from .experiments import (
    SCRATCH,
    Drawing,
    Experiment,
    PaperRow,
    chosen_columns,
    chosen_rows,
    configuration,
    file_of,
    key_of,
    marks_of,
    measured,
    records_of,
)
from .weights import of_run


def run(
    experiment: Experiment,
    dataset: str,
    scale: str,
    home: Path,
    *,
    rows: Sequence[str] = (),
    only: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Train and evaluate the rows that are not measured yet.

    Args:
        experiment: the experiment.
        dataset: a folder of recipes, such as "cifar10" or "synthetic-parts".
        scale: a key of ``SCALES``.
        home: the folder of run folders and records.
        rows: names of rows; all by default.
        only: names of columns; all by default.
        seeds: the seeds, each of which is a run of its own.
        changes: nested settings for every row, such as {"data": {"root": ...}}.

    Raises:
        UserError: an unknown row or column, no such recipe for the data set, or what training and evaluation refuse.
    """
    chosen = chosen_rows(experiment, rows)
    wanted = chosen_columns(experiment, only, dataset)
    _refuse_mixed_images(chosen)
    changed_settings = changes or {}
    for row, seed, fold in product(chosen, seeds, _folds(experiment, dataset, scale, changed_settings)):
        of_fold = changed_settings if fold is None else merge(changed_settings, {"data": {"fold": fold}})
        training = Training(experiment, dataset, scale, home, of_fold, seed)
        if training.lacking(row, wanted):
            with training.hold(row):
                # Another process may have measured some of them while this one waited.
                missing = training.lacking(row, wanted)
                if missing:
                    _measure(training, row, missing)
    if experiment.draw is not None:
        _draw(experiment, dataset, scale, home, chosen, seeds[0], changed_settings)


@dataclass(frozen=True)
class Training:
    """The rows of an experiment as they are trained from one seed, on one fold if there are folds.

    Attributes:
        experiment: the experiment.
        dataset: a folder of recipes.
        scale: a key of its scales.
        home: the folder of run folders and records.
        changes: nested settings for every row, the fold among them.
        seed: the seed.
    """

    experiment: Experiment
    dataset: str
    scale: str
    home: Path
    changes: Mapping[str, Any]
    seed: int

    @property
    def fold(self) -> str | None:
        """The fold that is judged, such as "1/5"."""
        fold: str | None = self.changes.get("data", {}).get("fold")
        return fold

    def lacking(self, row: PaperRow, wanted: Mapping[str, Column]) -> dict[str, Column]:
        """Those of some columns that are not measured yet."""
        records = records_of(self.experiment, self.dataset, self.scale, self.home)
        done = {(record.name, record.seed, record.details.get("fold")) for record in records}
        missing = {}
        for column, what in wanted.items():
            if (key_of(row, column), self.seed, self.fold) not in done:
                missing[column] = what
        return missing

    @contextmanager
    def hold(self, row: PaperRow) -> Iterator[None]:
        """Let nobody else train and measure a row meanwhile."""
        file = file_of(self.experiment, self.dataset, self.scale, self.home)
        name = fingerprint([row.name, self.seed, self.fold])
        guarded = f"row {row.name} of {self.experiment.name} (seed {self.seed})"
        wait = resolve({"wait": self.changes.get("wait", 0)}).wait
        with locks.hold(file.with_name(f".{file.stem}-{name}.lock"), guarded, wait):
            yield

    def configure(self, row: PaperRow) -> Config:
        """The settings of a row's run, after the row that it starts from has been trained."""
        changes = self.changes
        if row.starts_from is not None:
            model = {
                k: v for k, v in changes.get("model", {}).items() if k not in ("encoder_init", "pretrained")
            }
            if row.starts_from != SCRATCH:
                [first] = chosen_rows(self.experiment, [row.starts_from])
                model["init"] = str(self.train(first).path)
            changes = {**changes, "model": model}
        experiment = self.experiment
        return configuration(row, self.dataset, self.scale, self.home, self.seed, changes, experiment.scales)

    def train(self, row: PaperRow) -> RunDir:
        """The run of a row, trained or continued."""
        return _train(self.configure(row), self.experiment.fresh)

    def find_surrogate(self, name: str) -> str:
        """The run folder of a row of the experiment, trained if need be; any other target stays as it is."""
        if name not in {row.name for row in self.experiment.rows}:
            return name
        [other] = chosen_rows(self.experiment, [name])
        return str(self.train(other).path)

    def keep(self, row: PaperRow, by_column: Mapping[str, Record]) -> None:
        """Write what was measured of a row."""
        fold = {} if self.fold is None else {"fold": self.fold}
        records = [
            replace(
                record,
                name=key_of(row, column),
                seed=self.seed,
                details={**record.details, **marks_of(self.scale), **fold},
            )
            for column, record in by_column.items()
        ]
        file = file_of(self.experiment, self.dataset, self.scale, self.home)
        with locks.while_written(file):
            write(file, records)


def _measure(training: Training, row: PaperRow, missing: Mapping[str, Column]) -> None:
    """Train a row and measure the columns that are missing."""
    experiment, scale = training.experiment, training.scale
    config = training.configure(row)
    run = _train(config, experiment.fresh)
    corrupted = [column for column in missing if column in experiment.corruptions]
    if corrupted:
        training.keep(row, _corrupted(experiment, corrupted, run, config, scale))
    others = {column: what for column, what in missing.items() if column not in corrupted}
    judged, absent = of_run(others, config)
    training.keep(row, absent)
    for by_column in measure(
        judged,
        run,
        config,
        scale,
        settings=experiment.evaluate,
        autoattack_n=experiment.few.get(scale, {}).get("autoattack"),
        surrogate=training.find_surrogate,
    ):
        training.keep(row, by_column)


def _folds(experiment: Experiment, dataset: str, scale: str, changes: Mapping[str, Any]) -> list[str | None]:
    """The folds to run: all of the experiment's, or the only one that the settings name.

    Data sets that cannot be dealt to folds are judged on their own test images. At smoke scale one fold shows that it
    runs.
    """
    named = changes.get("data", {}).get("fold")
    if named is not None or not experiment.folds:
        return [named]
    images = resolve(load(f"{dataset}/{experiment.rows[0].recipe}")).data.name
    if not DATA_SETS[images].facts.takes_folds:
        return [None]
    last = 1 if scale == "smoke" else experiment.folds
    return [f"{fold}/{experiment.folds}" for fold in range(1, last + 1)]


def _refuse_mixed_images(rows: Sequence[PaperRow]) -> None:
    """Refuse rows that train on different images, since all rows of a command share ``data.root``."""
    for row in rows:
        if row.images != rows[0].images:
            kinds = " and ".join(other.images or "the data set's own" for other in (rows[0], row))
            raise UserError(
                f"rows {rows[0].name} and {row.name} train on other images ({kinds}): run them by themselves, with "
                "--rows and their --data.root."
            )


def _train(config: Config, fresh: bool) -> RunDir:
    """Train a run, or continue it."""
    run = RunDir(config.runs / (config.name or "run"))
    if fresh:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "run.yaml"
            file.write_text(yaml.safe_dump(plain(config)), encoding="utf-8")
            words = ["train", str(file), "--wait", str(config.wait)]
            done = subprocess.run([sys.executable, "-m", "counterpart", *words], check=False)
        if done.returncode:
            raise UserError(f"training {run.path} ended with exit code {done.returncode}; it says above why.")
        finished = sum(r.kind == "epoch" for r in run.records()) >= config.train.all_epochs
    else:
        finished = jobs.train(config).finished
    if not finished:
        raise UserError("train.stop_after ended the experiment; the same command continues.")
    return run


def _draw(
    experiment: Experiment,
    dataset: str,
    scale: str,
    home: Path,
    rows: Sequence[PaperRow],
    seed: int,
    changes: Mapping[str, Any],
) -> None:
    """Draw the figure of some rows, and write its record."""
    assert experiment.draw is not None
    file = file_of(experiment, dataset, scale, home).with_suffix(".png")
    configs = {
        row.name: configuration(row, dataset, scale, home, seed, changes, experiment.scales) for row in rows
    }
    root = next(iter(configs.values())).data.root
    settings = {"data": {"root": root}, "device": changes.get("device", "auto")}
    records = measured(experiment, dataset, scale, home)
    caption = experiment.draw(Drawing(experiment, dataset, configs, records, settings), file)
    details = {"file": file.name, "sha256": file_hash(file), "caption": caption, "rows": list(configs)}
    record = Record("artifact", "figure", seed=seed, details={**details, **marks_of(scale)})
    records_file = file_of(experiment, dataset, scale, home)
    with locks.while_written(records_file):
        write(records_file, [record])


def _corrupted(
    experiment: Experiment, columns: Sequence[str], run: RunDir, config: Config, scale: str
) -> dict[str, Record]:
    """Column -> accuracy under its corruptions; columns that cannot be measured are missing."""
    chosen = config.corruptions
    published = all(name.endswith("/severity 1") for name in experiment.corruptions.values())
    settings = {
        "corruptions": {
            "names": "all" if published else "benchmark",
            "published": published,
            "source": chosen.source,
            "frost": chosen.frost,
        },
        "evaluate": {
            **experiment.evaluate,
            "n": few(config, experiment.few.get(scale, {}).get("corruptions")),
        },
        "data": {"root": config.data.root},
        "wait": config.wait,
    }
    [judged] = jobs.evaluate_corruptions(str(run.path), settings)
    by_name = {record.name.removeprefix("corruption/"): record for record in judged.records}
    wanted = {column: experiment.corruptions[column] for column in columns}
    return {column: by_name[name] for column, name in wanted.items() if name in by_name}
