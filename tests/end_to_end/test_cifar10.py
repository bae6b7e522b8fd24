"""The main job on real CIFAR-10 images, through the command line, as the README shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterpart.rundir import RunDir

SOURCE = str(Path(__file__).parents[2] / "src")
pytestmark = pytest.mark.slow


def counterpart(*words):
    command = [sys.executable, "-m", "counterpart", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_evaluate_report(shared, tmp_path):
    subprocess.run(
        [sys.executable, shared / "data" / "restore_cifar10.py", "lossless", tmp_path],
        check=True,
        capture_output=True,
    )
    counterpart(
        "train", "cifar10/part", "--data.root", tmp_path, "--runs", tmp_path / "runs", "--data.limit", 200,
        "--model.width", 8, "--train.epochs", 4, "--train.batch-size", 50, "--train.validation-n", 50,
        "--attack.steps", 3, "--train.precision", "float32",
    )  # fmt: skip
    run = RunDir(tmp_path / "runs" / "cifar10-part")
    epochs = [r.details for r in run.records() if r.kind == "epoch"]
    assert [e["phase"] for e in epochs] == ["burn-in", "part", "part", "part"]
    assert all(7 / 255 <= e["mean_radius"] <= 8 / 255 + 1e-6 for e in epochs)
    assert epochs[-1]["loss"] < epochs[0]["loss"]

    counterpart("evaluate", run.path, "--evaluate.n", 100, "--evaluate.attacks", "[{steps: 5}]")
    results = {r.name: r for r in run.records() if r.kind == "metric"}
    assert results["accuracy/clean"].n == 100
    assert results["accuracy/PGD-5"].value <= results["accuracy/clean"].value
    assert results["accuracy/clean"].details["data"] == "cifar10"

    page = counterpart("report", run.path)
    assert "index.html" in page
    assert "cifar10" in (run.path / "report" / "index.html").read_text()
