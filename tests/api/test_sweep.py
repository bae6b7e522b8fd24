"""``counterpart.sweep`` of objects: the trials are those that ``counterpart.train`` trains of the same objects."""

import pytest
import torch
from torch import nn

import counterpart as cp
from counterpart.errors import UserError
from counterpart.training import checkpoint

pytest.importorskip("optuna", reason="needs the sweep extra: pip install '.[sweep]'")

CHANGES = {"train.epochs": 2, "train.batch_size": 8, "train.precision": "float32", "train.validation_steps": 1,
           "train.validation_n": None, "threads": 1, "device": "cpu"}  # fmt: skip


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture
def images():
    return torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 3


def weights(folder):
    return checkpoint.read(folder / "checkpoints" / "best.safetensors")[0]


def test_objects_are_swept_as_they_are_trained(images, tmp_path):
    model = network()
    before = torch.get_rng_state()
    rates = {"optimizer.lr": [0.02, 0.1]}
    swept = cp.sweep("digits/at", rates, data=images, model=model, folder=tmp_path / "swept", changes=CHANGES)
    assert torch.equal(torch.get_rng_state(), before)
    assert swept.path == tmp_path / "swept"
    assert [trial.state for trial in swept.trials] == ["trained", "trained"]
    assert swept.plot.exists()
    assert "trial-0000" in str(swept)
    for trial in swept.trials:
        changes = {**CHANGES, "optimizer.lr": float(trial.settings["optimizer.lr"])}
        alone = cp.train("digits/at", data=images, model=model, folder=tmp_path / trial.name, changes=changes)
        first, second = weights(trial.path), weights(alone.path)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_named_space_and_a_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = {**CHANGES, "data.limit": 60, "data.size": 8, "model.name": "wrn-10-1", "model.width": 4}
    small |= {"train.method": "trades", "train.epochs": 1, "train.validation_n": 20, "attack.steps": 1}
    swept = cp.sweep("digits/at", "trades-beta", 1, changes=small, prune=False)
    assert swept.path.as_posix() == "runs/digits-at-trades-beta"
    assert list(swept.best.settings) == ["train.beta"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"space": {"train.bta": [1]}}, "the space: unknown setting 'train.bta'. Did you mean 'train.beta'?"),
        (
            {"space": {"optimizer.lr": [1]}, "changes": {"optimizer.lr": 2}},
            "optimizer.lr varies in the space",
        ),
        ({"space": {"optimizer.lr": [1]}, "trials": 0}, "trials 0 must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_swept_is_refused(tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        cp.sweep("digits/at", **arguments)
    assert complaint in str(caught.value)
    assert not (tmp_path / "runs").exists()
