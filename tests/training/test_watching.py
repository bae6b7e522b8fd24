"""A training that is watched: what is seen of its epochs, and that ending it between two of them loses nothing."""

import pytest
import torch

from counterpart import recipes
from counterpart.config import resolve
from counterpart.jobs import training
from counterpart.rundir import RunDir
from counterpart.training import checkpoint


class Enough(Exception):
    pass


def configure(tmp_path, name):
    small = {
        "data": {"limit": 60, "size": 8},
        "model": {"name": "wrn-10-1", "width": 4},
        "attack": {"steps": 1},
        "train": {"epochs": 3, "batch_size": 20, "validation_steps": 1, "validation_n": 20},
    }
    return resolve(recipes.load("digits/at"), small, {"name": name, "runs": str(tmp_path), "device": "cpu"})


def weights(run):
    return checkpoint.read(run.checkpoint("last"))[0]


def test_a_watcher_sees_what_is_recorded_and_may_end_the_training(tmp_path):
    seen = []

    def watch(details):
        assert checkpoint.read(run.checkpoint("last"))[1]["state"]["epoch"] == details["epoch"] + 1
        seen.append(details)
        if details["epoch"] == 1:
            raise Enough

    run = RunDir(tmp_path / "watched")
    with pytest.raises(Enough):
        training.train(configure(tmp_path, "watched"), watch=watch)
    assert [dict(record.details) for record in run.records()] == seen
    assert [details["epoch"] for details in seen] == [0, 1]
    assert training.train(configure(tmp_path, "watched")).finished
    whole = training.train(configure(tmp_path, "whole")).run
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(run).items())
