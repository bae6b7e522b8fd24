"""``counterpart.train`` of objects: what the command trains of the same network and images, bit for bit."""

import sys

import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.training import checkpoint

USERS = """
import torch
from torch import nn
from counterpart.data.objects import read_splits

def Net(num_classes=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, num_classes))

def images():
    return torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))

def labels():
    return torch.arange(40) % 3

def data(root):
    return read_splits((images(), labels()), 0.1)
"""

CHANGES = {"train.epochs": 2, "train.batch_size": 8, "train.precision": "float32", "train.validation_steps": 1,
           "threads": 1, "device": "cpu", "train.validation_n": None}  # fmt: skip


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "trainets.py").write_text(USERS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import trainets

    yield trainets
    sys.modules.pop("trainets", None)


def test_objects_train_as_the_command_trains_them(mine, tmp_path):
    network = mine.Net()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = cp.train(
        "digits/at",
        data=(mine.images(), mine.labels()),
        model=network,
        folder=tmp_path / "live",
        changes=CHANGES,
    )
    assert run.finished
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    words = ["train", "digits/at", "--data.name", "trainets:data", "--model.name", "trainets:Net", "--model.width",
             "null", "--name", "named"]  # fmt: skip
    for name, value in CHANGES.items():
        words += [f"--{name}", "null" if value is None else str(value)]
    assert main(words) == 0
    live, named = (
        checkpoint.read(tmp_path / place / "checkpoints" / "best.safetensors")[0]
        for place in ("live", "runs/named")
    )
    assert live.keys() == named.keys()
    assert all(torch.equal(live[name], named[name]) for name in live)
    trained = run.model.state_dict()
    assert any(not torch.equal(trained[name], before[name]) for name in before)


def test_what_was_trained_is_judged_reported_and_not_trained_again(mine, tmp_path):
    options = {"data": (mine.images(), mine.labels()), "folder": tmp_path / "live", "changes": CHANGES}
    run = cp.train("digits/at", model=mine.Net(), **options)
    judged = run.evaluate((mine.images(), mine.labels()), attacks="fgsm")
    assert judged.radii == (0.1,)  # as it was trained
    assert judged.n == 40
    with pytest.raises(UserError, match="give the images to judge it on"):
        run.evaluate()
    assert run.report().read_text().startswith("<!doctype html>")
    epochs = len(run.records)
    again = cp.train("digits/at", model=mine.Net(), **options)
    assert len(again.records) == epochs
    other = mine.Net()
    nn.init.zeros_(other[0].weight)
    with pytest.raises(UserError, match=r"another configuration \(model\.name"):
        cp.train("digits/at", model=other, **options)
    assert main(["evaluate", str(run.path)]) == 2
    with pytest.raises(UserError, match="object of a Python program"):
        cp.load(run.path)


def test_what_is_wrong_is_said_before_anything_is_written(mine, tmp_path):
    data = (mine.images(), mine.labels())
    for options, words in (
        ({"data": data, "model": mine.Net(5)}, "answers with 5 classes, and tensors has 3"),
        ({"data": iter(data)}, "training needs data with indices"),
        ({"data": {"training": data}}, "splits are train, validation and test"),
        ({"data": data, "changes": {"train.epoch": 1}}, "Did you mean 'train.epochs'"),
    ):
        with pytest.raises(UserError, match=words):
            cp.train("digits/at", folder=tmp_path / "live", **options)
    assert not (tmp_path / "live").exists()
