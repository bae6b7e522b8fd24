"""Where a training goes on."""

import json

import pytest
import torch

from counterpart import distributed, jobs
from counterpart.checksums import save_tensors
from counterpart.errors import UserError
from counterpart.rundir import RunDir
from counterpart.training import checkpoint, loop, resuming


@pytest.mark.parametrize(
    "about", [{"stave": {"epoch": 1, "step": 0}}, {"state": {"epoch": 1}}, {"state": [1]}]
)
def test_a_header_whose_state_is_damaged_is_refused_before_hosts_compare(monkeypatch, tmp_path, about):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    last = tmp_path / "last.safetensors"
    save_tensors({"weight": torch.zeros(1)}, last, {"counterpart": json.dumps(about)})
    with pytest.raises(UserError, match=r"last\.safetensors is damaged: .* how far the training came"):
        resuming._refuse_a_later_start(last)


def test_an_epoch_whose_record_came_before_a_kill_is_logged_once(tiny, monkeypatch):
    """The record of an epoch is written, and the process ends before its checkpoint is."""
    whole = jobs.train(tiny(name="whole")).run
    config, undisturbed = tiny(name="killed"), loop._Training.finish_epoch

    def die(training, *arguments):
        if training.state.epoch == 1:
            raise SystemExit("killed")
        undisturbed(training, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "finish_epoch", die)
        with pytest.raises(SystemExit):
            jobs.train(config)
    run = RunDir(config.runs / "killed")
    assert [record.details["epoch"] for record in run.records()] == [0, 1]
    assert checkpoint.read(run.checkpoint("last"))[1]["state"]["epoch"] == 1
    assert jobs.train(config).finished
    assert [record.details["epoch"] for record in run.records() if record.kind == "epoch"] == [0, 1, 2]
    weights, expected = (checkpoint.read(here.checkpoint("last"))[0] for here in (run, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
