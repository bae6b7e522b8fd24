"""Trackers hear every record once: functions of a program, module:function of a command, and TensorBoard."""

import logging
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import counterpart
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.jobs.tracking import tracked
from counterpart.pictures import Pictures
from counterpart.rundir import RunDir
from counterpart.training import loop

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "data.limit": 60, "data.size": 8, "model.name": "wrn-10-1", "model.width": 4, "attack.steps": 1,
    "train.epochs": 3, "train.batch_size": 20, "train.validation_steps": 1, "train.validation_n": 20, "threads": 1,
    "device": "cpu",
}  # fmt: skip
WORDS = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


class Ear:
    """A tracker that remembers what it heard, and may raise something at some epoch."""

    def __init__(self, at=None, error=None):
        self.heard, self.at, self.error = [], at, error

    def __call__(self, record, run):
        self.heard.append((record, run))
        if record.kind == "epoch" and record.details["epoch"] == self.at:
            raise self.error

    @property
    def epochs(self):
        return [record.details["epoch"] for record, _ in self.heard if record.kind == "epoch"]


def train(folder, ear=None):
    return counterpart.train("digits/at", folder=folder, changes=SMALL, on_record=ear)


def plain(records):
    return [(record.kind, record.name, record.value, dict(record.details)) for record in records]


@pytest.fixture
def objects():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return model.eval(), (images, model(images).argmax(1))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a tracker of the user's, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_tracker.py").write_text(
        "heard, closed = [], []\n\n\nclass Ear:\n    def __call__(self, record, run):\n"
        "        heard.append((record.kind, str(run)))\n\n    def close(self):\n        closed.append(len(heard))\n\n\n"
        "ear = Ear()\n\n\ndef other(record):\n    pass\n"
    )
    yield tmp_path
    sys.modules.pop("my_tracker", None)


def test_a_function_hears_every_epoch_once_as_it_is_recorded(tmp_path):
    ear = Ear()
    run = train(tmp_path / "run", ear)
    assert ear.epochs == [0, 1, 2]
    assert {folder for _, folder in ear.heard} == {tmp_path / "run"}
    assert plain(record for record, _ in ear.heard) == plain(run.records)
    again = Ear()
    train(tmp_path / "run", again)
    assert again.heard == []


def test_a_stopped_training_that_goes_on_tells_no_epoch_twice(tmp_path):
    first, second = Ear(at=1, error=KeyboardInterrupt()), Ear()
    with pytest.raises(KeyboardInterrupt):  # what is no Exception ends the training
        train(tmp_path / "run", first)
    train(tmp_path / "run", second)
    assert (first.epochs, second.epochs) == ([0, 1], [2])


def test_an_epoch_whose_checkpoint_was_never_written_is_told_once(tmp_path, monkeypatch):
    first, second = Ear(), Ear()
    save = loop._Training.save

    def killed(training, phase):
        if training.state.epoch == 2:
            raise SystemExit
        save(training, phase)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "save", killed)
        with pytest.raises(SystemExit):
            train(tmp_path / "run", first)
    assert len(RunDir(tmp_path / "run").records()) == 2
    train(tmp_path / "run", second)
    assert (first.epochs, second.epochs) == ([0], [1, 2])


def test_a_tracker_that_fails_is_said_once_and_ends_nothing(tmp_path, caplog):
    ear = Ear()

    def failing(record, run):
        ear(record, run)
        raise ConnectionError("the server\nis gone")

    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "run", failing)
    assert run.finished
    assert ear.epochs == [0, 1, 2]
    said = [record.message for record in caplog.records if "on_record" in record.message]
    assert said == [
        "on_record failed on the record 'epoch' (ConnectionError: the server). What is under way goes on."
    ]


def test_a_tracker_that_cannot_be_called_so_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"on_record cannot be called as it would be: .*it has \(record\)"):
        train(tmp_path / "run", lambda record: None)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"on_record is a function.*got str"), tracked("mine"):
        pass


def test_an_evaluation_tells_its_records_with_and_without_a_folder(objects, tmp_path):
    model, data = objects
    ear, options = Ear(), {"attacks": ["fgsm"], "eps": "8/255"}
    judged = counterpart.evaluate(model, data, on_record=ear, **options)
    assert plain(record for record, _ in ear.heard) == plain(judged.records)
    assert {folder for _, folder in ear.heard} == {None}
    ear = Ear()
    counterpart.evaluate(model, data, folder=tmp_path / "run", on_record=ear, **options)
    assert plain(record for record, _ in ear.heard) == plain(RunDir(tmp_path / "run").records())
    assert {"metric", "artifact"} <= {record.kind for record, _ in ear.heard}
    ear = Ear()
    counterpart.evaluate(model, data, folder=tmp_path / "run", on_record=ear, **options)
    assert ear.heard == []


def test_a_where_profile_and_an_audit_tell_their_records(objects):
    model, data = objects
    ear = Ear()
    few = {"attacks": ["fgsm"], "regions": "window", "shares": (0.25,), "draws": 1}
    profile = counterpart.where(model, data, eps="8/255", on_record=ear, **few)
    assert plain(record for record, _ in ear.heard) == plain(profile.records)
    assert ear.heard
    ear = Ear()
    behaviours = counterpart.audit(
        model, data, eps="8/255", steps=2, queries=2, draws=2, points=4, on_record=ear
    )
    assert [record.name for record, _ in ear.heard] == [f"audit/{behaviour.name}" for behaviour in behaviours]


def test_a_command_gives_its_records_to_module_and_function_and_closes_it(here, capsys):
    assert main(["train", "digits/at", "--name", "mine", *WORDS, "--track", "my_tracker:ear"]) == 0
    module = sys.modules["my_tracker"]
    assert module.heard == [("epoch", "runs/mine")] * 3
    assert module.closed == [3]
    assert "my_tracker:ear runs your own code" in " ".join(capsys.readouterr().err.split())


def test_other_processes_than_the_main_one_track_nothing(here, monkeypatch):
    words = ["evaluate", "absent", "--track", "my_tracker:absent"]
    monkeypatch.setenv("RANK", "1")
    assert main(words) == 2
    assert "my_tracker" not in sys.modules


@pytest.mark.slow
def test_of_two_processes_the_main_one_tracks(tmp_path):
    (tmp_path / "told.py").write_text(
        "import os\n\n\ndef log(record, run):\n    with open('told.txt', 'a') as file:\n"
        "        print(os.environ['RANK'], record.kind, run, file=file)\n"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "counterpart"]
    words = ["train", "digits/at", "--name", "mine", *WORDS, "--track", "told:log"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *torchrun, *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "told.txt").read_text().splitlines() == ["0 epoch runs/mine"] * 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_tracker:other", "my_tracker:other cannot be called as it would be"),
        ("my_tracker:heard", "--track my_tracker:heard is a function(record, run)"),
        ("tensorbord", "--track tensorbord: Did you mean 'tensorboard'?"),
        ("my_tracker:absent", "my_tracker has no function 'absent'"),
    ],
)
def test_a_tracker_that_there_is_not_is_refused_in_a_line(here, capsys, name, message):
    assert main(["train", "digits/at", *WORDS, "--track", name]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "runs").exists()


def read_events(folder):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    return events.Reload()


def test_tensorboard_shows_scalars_pictures_and_the_configuration(here):
    pytest.importorskip("tensorboard")
    assert main(["train", "digits/at", "--name", "mine", *WORDS, "--track", "tensorboard"]) == 0
    evaluate = ["evaluate", "runs/mine", "--n", "10", "--attacks", "fgsm", "--threads", "1"]
    assert main([*evaluate, "--track", "tensorboard"]) == 0
    run = RunDir(Path("runs/mine"))
    events = read_events(run.path / "tensorboard")
    epochs = [record.details for record in run.records() if record.kind == "epoch"]
    for tag, name in (("validation/clean", "validation_clean"), ("training/loss", "loss")):
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([d[name] for d in epochs])
    metrics = {record.name: record for record in run.records() if record.kind == "metric"}
    worst = metrics["accuracy/worst case"]
    key = worst.details["evaluation"]
    [event] = events.Scalars(f"accuracy/worst case/{key}")
    assert event.value == pytest.approx(worst.value)
    [event] = events.Images(f"panel/{key}/clean")
    clean = Pictures.read(run.path / "evaluations" / key / "panel.safetensors").clean
    assert (event.height * event.width) >= min(16, len(clean)) * np.prod(clean.shape[2:])
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert '"epochs": 3' in text
    assert '"name": "digits"' in text


def test_tensorboard_that_is_not_there_is_a_line(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    assert main(["train", "digits/at", *WORDS, "--track", "tensorboard"]) == 2
    assert "python -m pip install 'counterpart[tensorboard]'" in capsys.readouterr().err


class FakeRun:
    """A run of Weights & Biases."""

    def __init__(self, made, **about):
        self.about, self.logged, self.summary = about, [], {}
        made.append(self)

    def log(self, numbers):
        self.logged.append(numbers)


def run_example(monkeypatch, name, stand_in, tmp_path):
    module = ModuleType(name)
    vars(module).update(stand_in)
    monkeypatch.setitem(sys.modules, name, module)
    log = runpy.run_path(str(EXAMPLES / f"track_{name}.py"))["log"]
    run = train(tmp_path / "run", log)
    run.evaluate(attacks="fgsm", n=10, on_record=log)
    return run.records


def test_the_example_of_weights_and_biases(monkeypatch, tmp_path):
    made = []
    records = run_example(monkeypatch, "wandb", {"init": lambda **about: FakeRun(made, **about)}, tmp_path)
    [shown] = made
    assert (shown.about["name"], shown.about["resume"]) == ("run", "allow")
    epochs = [record.details for record in records if record.kind == "epoch"]
    assert [numbers["loss"] for numbers in shown.logged] == [details["loss"] for details in epochs]
    assert shown.summary == {record.name: record.value for record in records if record.kind == "metric"}


def test_the_example_of_mlflow(monkeypatch, tmp_path):
    logged = []
    stand_in = {
        "MlflowClient": lambda: SimpleNamespace(
            create_run=lambda experiment, run_name: SimpleNamespace(
                info=SimpleNamespace(run_id=f"id of {run_name}")
            )
        ),
        "log_metrics": lambda numbers, step, run_id: logged.append((run_id, step, numbers["loss"])),
        "log_metric": lambda name, value, run_id: logged.append((run_id, name, value)),
    }
    records = run_example(monkeypatch, "mlflow", stand_in, tmp_path)
    epochs = [r.details for r in records if r.kind == "epoch"]
    metrics = [r for r in records if r.kind == "metric"]
    assert logged == [
        *(("id of run", details["epoch"] + 1, details["loss"]) for details in epochs),
        *(("id of run", record.name, record.value) for record in metrics),
    ]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_an_example_is_of_ten_lines(name):
    source = (EXAMPLES / f"track_{name}.py").read_text().split('"""', 2)[2]
    code = [line for line in source.splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 12
