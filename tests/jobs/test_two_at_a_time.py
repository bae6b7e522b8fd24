"""Two processes on one run: each command that writes is kept out by a real process that holds the same thing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpart import locks, papers
from counterpart.cli import main
from counterpart.data.staging import LOCK
from counterpart.records import Record
from counterpart.rundir import RunDir

SOURCE = str(Path(__file__).parents[2] / "src")
HOLDER = """
import sys, time
from pathlib import Path
from counterpart import locks
with locks.hold(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""
TINY = [
    "digits/at", "--data.limit", "80", "--model.name", "wrn-10-1", "--model.width", "2", "--attack.steps", "1",
    "--train.epochs", "1", "--train.validation-n", "10", "--train.validation-steps", "1", "--device", "cpu",
    "--threads", "1", "--name", "mine",
]  # fmt: skip
JUDGED = ["runs/mine", "--n", "10", "--device", "cpu"]
COMMANDS = {
    "training": ["train", *TINY],
    "evaluation": ["evaluate", *JUDGED, "--attacks", "none"],
    "corruptions": ["corruptions", *JUDGED, "--corruptions.names", "fog", "--severities", "1"],
    "where": [
        "where",
        *JUDGED,
        "--attacks",
        "[{steps: 1}]",
        "--regions",
        "window",
        "--shares",
        "25%",
        "--draws",
        "1",
    ],
    "audit": [
        "audit",
        *JUDGED,
        "--steps",
        "1",
        "--queries",
        "1",
        "--draws",
        "1",
        "--traced",
        "1",
        "--points",
        "1",
    ],
}


def environment():
    return {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def hold_elsewhere():
    """Let a real process hold a lock file until the test ends, and return it."""
    processes = []

    def hold(file):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def locks_taken(monkeypatch):
    """The lock files that are taken, each with what it guards, but for the short ones of files that grow."""
    taken, original = [], locks.hold

    def hold(file, guarded, wait=0.0, start=None):
        if guarded != str(file.parent / file.name[1:].removesuffix(".lock")):
            taken.append(file)
        return original(file, guarded, wait, start)

    monkeypatch.setattr(locks, "hold", hold)
    return taken


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which a run was trained."""
    folder = tmp_path_factory.mktemp("two")
    before = Path.cwd()
    os.chdir(folder)
    assert main(["train", *TINY]) == 0
    os.chdir(before)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_kept_out_while_another_process_holds_it(
    command, folder, hold_elsewhere, locks_taken, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    assert main(COMMANDS[command]) == 0  # nobody holds it
    assert locks_taken, "it took no lock"
    assert not any(file.exists() for file in locks_taken)
    records = RunDir(folder / "runs" / "mine").records_file
    before = records.read_bytes()
    holder = hold_elsewhere(folder / locks_taken[0])
    capsys.readouterr()
    assert main(COMMANDS[command]) == 2
    [*_, said] = capsys.readouterr().err.splitlines()
    assert f"in use by process {holder.pid} on " in said
    assert said.endswith("Wait for it with --wait 10m, or stop that process.")
    assert records.read_bytes() == before
    threading.Timer(1.5, holder.kill).start()
    assert main([*COMMANDS[command], "--wait", "1m"]) == 0


def test_a_preparation_is_kept_out(tmp_path, hold_elsewhere, capsys):
    source, target = tmp_path / "source", tmp_path / "target"
    for label in ("cat", "dog"):
        for number in range(3):
            path = source / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 20, 3), 10 * number, np.uint8)).save(path)
            shape = {"label": "head", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
            about = {"shapes": [shape], "imagePath": path.name, "imageHeight": 20, "imageWidth": 20}
            path.with_suffix(".json").write_text(json.dumps(about))
    words = ["data", "prepare", "labelme", "--source", str(source), "--target", str(target), "--workers", "1"]
    holder = hold_elsewhere(target / LOCK)
    assert main(words) == 2
    assert f"the preparation of {target} is in use by process {holder.pid} on " in capsys.readouterr().err
    assert not (target / "manifest.jsonl").exists()
    threading.Timer(1.5, holder.kill).start()
    assert main([*words, "--wait", "1m"]) == 0
    assert (target / "manifest.jsonl").exists()
    hold_elsewhere(target / LOCK)
    assert main(words) == 0  # it is complete, and whoever reads it needs no lock
    assert main(["data", "check", str(target), "--sheet", str(tmp_path / "s.png"), "--wait", "1m"]) == 2
    assert "--wait has no effect on counterpart data check" in capsys.readouterr().err


def test_a_row_of_a_paper_is_kept_out(tmp_path, hold_elsewhere, locks_taken, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [
        "papers",
        "run",
        "pixel/figure-4",
        "--dataset",
        "digits",
        "--scale",
        "smoke",
        "--columns",
        "natural",
    ]
    words += ["--rows", papers.find("pixel/figure-4").rows[0].name, "--device", "cpu", "--threads", "1"]
    assert main(words) == 0
    row = locks_taken[0]  # and the training's and the evaluation's after it
    [records] = row.parent.glob("*.jsonl")
    written = records.read_bytes()
    records.unlink()
    holder = hold_elsewhere(tmp_path / row)
    assert main(words) == 2
    assert f"(seed 0) is in use by process {holder.pid} on " in capsys.readouterr().err
    assert not records.exists()
    threading.Timer(1.5, lambda: (records.write_bytes(written), holder.kill())).start()
    assert main([*words, "--wait", "1m"]) == 0
    assert records.read_bytes() == written  # the other process had measured the row meanwhile


def test_readers_need_no_lock(folder, hold_elsewhere, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(COMMANDS["evaluation"]) == 0
    run = RunDir(folder / "runs" / "mine")
    hold_elsewhere(run.training_lock)
    for ledger in (run.path / "evaluations").iterdir():
        hold_elsewhere(ledger / ".ledger.lock")
    assert main(["report", "runs/mine"]) == 0
    assert main(["verify", "runs/mine"]) == 0


WRITER = """
import sys
from pathlib import Path
from counterpart.records import Record
from counterpart.rundir import RunDir
run, writer = RunDir(Path(sys.argv[1])), int(sys.argv[2])
for number in range(8):
    run.add([Record("metric", f"{writer}/{number}", number / 8, details={"long": "x" * 5000})])
    run.add_once([Record("metric", "shared", 1.0)])
    if number % 3 == 0:
        run.drop_epochs_from(0)
"""


def test_records_of_several_writers_are_all_there_once_and_whole_for_any_reader(tmp_path):
    run = RunDir(tmp_path / "mine")
    run.add([Record("epoch", "epoch", details={"epoch": 0})])
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(run.path), str(number)], env=environment())
        for number in range(3)
    ]
    while any(writer.poll() is None for writer in writers):
        run.records()  # a reader needs no lock, and never sees half a record
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    names = [record.name for record in run.records()]
    assert sorted(names) == sorted(["shared", *(f"{w}/{n}" for w in range(3) for n in range(8))])
    assert [path.name for path in run.path.iterdir()] == ["records.jsonl"]


def start_training(folder, *words):
    command = [sys.executable, "-m", "counterpart", "train", *TINY, "--train.epochs", "40", *words]
    return subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_two_trainings_of_one_run(tmp_path):
    """The second says who trains it and exits 2; one that waits goes on where a kill ended the first."""
    run = RunDir(tmp_path / "runs" / "mine")
    first = start_training(tmp_path)
    while not run.checkpoint("last").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)  # it holds its lock, however slow the others are
    second, third = start_training(tmp_path), start_training(tmp_path, "--wait", "5m")
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"the training runs/mine is in use by process {first.pid} on " in said
    assert "train digits/at" in said
    said = third.stderr.readline()
    assert f"process {first.pid} on " in said
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, said = third.communicate(timeout=300)
    assert third.returncode == 0, said
    epochs = [record.details["epoch"] for record in run.records() if record.kind == "epoch"]
    assert epochs == list(range(40))
