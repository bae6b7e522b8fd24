"""A file of weights runs no code by itself: what its header names is imported nowhere but in its run folder."""

import json
import shutil
import sys

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from counterpart import jobs
from counterpart.cli import main
from counterpart.config import resolve

CODE = """
from pathlib import Path
from torch import nn

Path("imported").touch()

def tiny(in_channels, num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
"""


@pytest.fixture
def weights_of(tmp_path, monkeypatch):
    """The weights of a run without the run, in a folder with a module of the user's; by the name of the network."""

    def train(network, size):
        settings = {
            "name": "own", "runs": str(tmp_path / "runs"), "device": "cpu", "data": {"name": "digits", "size": size},
            "model": {"name": network}, "train": {"method": "clean", "epochs": 1},
        }  # fmt: skip
        run = jobs.train(resolve(settings)).run
        shutil.copy(run.checkpoint("best"), tmp_path / "alone.safetensors")
        (tmp_path / "imported").unlink(missing_ok=True)
        sys.modules.pop("tiny_nets", None)
        return tmp_path / "alone.safetensors"

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "tiny_nets.py").write_text(CODE)
    yield train
    sys.modules.pop("tiny_nets", None)


def judge(weights, size):
    words = ["--runs", "judged", "--n", "8", "--attacks", "none", "--data.size", str(size)]
    return main(["evaluate", str(weights), *words])


def test_a_network_that_is_named_as_code_is_not_built(weights_of, capsys):
    weights = weights_of("tiny_nets:tiny", 8)
    assert judge(weights, 8) == 2
    assert "its network is the code tiny_nets:tiny" in capsys.readouterr().err
    assert not (weights.parent / "imported").exists()
    assert not (weights.parent / "judged").exists()


def test_data_that_are_named_as_code_are_not_read(weights_of, capsys):
    weights = weights_of("small-cnn", 16)
    with safe_open(weights, framework="pt") as opened:
        header = json.loads(opened.metadata()["counterpart"])
    save_file(
        load_file(weights), weights, {"counterpart": json.dumps({**header, "data": "tiny_nets:images"})}
    )
    assert judge(weights, 16) == 2
    assert "on which images?" in capsys.readouterr().err
    assert not (weights.parent / "imported").exists()


def test_a_run_of_ones_own_needs_no_word(weights_of):
    weights_of("tiny_nets:tiny", 8)
    assert main(["evaluate", "runs/own", "--n", "8", "--attacks", "none"]) == 0
