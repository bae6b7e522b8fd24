"""A sweep of trainings that take a second each."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import counterpart
from counterpart import recipes, sweeps
from counterpart.config import resolve
from counterpart.rundir import RunDir
from counterpart.training import checkpoint

pytest.importorskip("optuna", reason="needs the sweep extra: pip install '.[sweep]'")

SOURCE = str(Path(counterpart.__file__).parents[1])
SMALL = {
    "device": "cpu",
    "data": {"limit": 120, "size": 8},
    "model": {"name": "wrn-10-1", "width": 4},
    "attack": {"eps": 0.05, "steps": 1},
    "train": {"epochs": 2, "batch_size": 30, "validation_steps": 1, "validation_n": 40},
}


@pytest.fixture
def small(tmp_path):
    """A recipe file of the small training, and its folder as the working folder."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump({"base": "digits/at", **SMALL}))
    return file


@pytest.fixture
def configure(tmp_path):
    """Make a configuration of the small training, with changes."""

    def make(*changes, name="swept", runs=tmp_path / "runs"):
        return resolve(recipes.load("digits/at"), SMALL, {"name": name, "runs": str(runs)}, *changes)

    return make


@pytest.fixture
def swept(configure):
    """Sweep the small training over a space."""

    def run(space, trials=None, *changes, storage=None, prune=False, **where):
        config = configure(*changes, **where)
        return sweeps.sweep(config, sweeps.read_space(space, config), trials, storage=storage, prune=prune)

    return run


def start(words, folder):
    """A worker as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "counterpart", "sweep", *words]
    with (folder / f"worker-{time.monotonic_ns()}.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)


def end_after_an_epoch(worker, run, how=signal.SIGKILL):
    """Send a worker a signal once it has trained an epoch of a run, and return its exit code."""
    deadline = time.monotonic() + 120
    while not (run.checkpoint("last").exists() and run.records_file.exists()):
        assert worker.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker.send_signal(how)
    return worker.wait(60)


def weights(run):
    """The tensors of a run's last checkpoint."""
    return checkpoint.read(RunDir(Path(run)).checkpoint("last"))[0]


def epochs_of(run):
    return [record.details["epoch"] for record in RunDir(Path(run)).records() if record.kind == "epoch"]
