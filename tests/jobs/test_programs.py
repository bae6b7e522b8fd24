"""TorchScript programs as targets: they run with --trust alone, are told apart by their bytes, and verify."""

import warnings

import pytest
import torch
from torch import nn

from counterpart import jobs
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.evaluation.weights import weights_hash
from counterpart.jobs.targets import open_targets
from counterpart.models.torchscript import TorchScriptModel

ASKED = ("--data.name", "digits", "--eps", "0.1", "--attacks", "fgsm", "--n", "20", "--threads", "1")


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.layer, self.scale = nn.Linear(256, 10), scale

    def forward(self, images):
        return self.scale * self.layer(images.flatten(1))


def save_program(path, scale=1.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Scaled(scale).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have it written in another form
        torch.jit.trace(model, torch.rand(2, 1, 16, 16)).save(path)
    return model


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_program_runs_where_it_is_trusted_and_nowhere_else(here, capsys, monkeypatch):
    model = save_program(here / "net.pt")
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "load", None)  # it would be called in vain
        for words in (["evaluate", "net.pt", *ASKED], ["audit", "net.pt", "--data.name", "digits"]):
            assert main(words) == 2
            refusal = capsys.readouterr().err
            assert "net.pt is a TorchScript program, which is code that would run" in refusal
            assert "counterpart evaluate net.pt --trust" in refusal
    assert main(["evaluate", "net.pt", "--trust", *ASKED]) == 0
    assert "net.pt is a program, which runs." in capsys.readouterr().err
    assert main(["verify", "runs/net"]) != 0
    assert "TorchScript program" in capsys.readouterr().err
    assert main(["verify", "runs/net", "--trust"]) == 0
    assert "claims hold" in capsys.readouterr().out
    [target] = open_targets("net.pt", {"data": {"name": "digits"}}, trust=True)
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(target.model(images), model(images))


def test_another_program_with_the_same_weights_is_another_model(here):
    save_program(here / "one.pt")
    save_program(here / "two.pt", scale=2.0)
    first, second = (TorchScriptModel(here / name) for name in ("one.pt", "two.pt"))
    assert weights_hash(first.program) == weights_hash(second.program)
    assert weights_hash(first) != weights_hash(second)


def test_a_damaged_program_is_refused_in_one_line(here):
    save_program(here / "net.pt")
    content = (here / "net.pt").read_bytes()
    (here / "net.pt").write_bytes(content[:200] + bytes(len(content) - 400) + content[-200:])
    with pytest.raises(UserError, match=r"net\.pt") as caught:
        jobs.evaluate("net.pt", {"data": {"name": "digits"}}, trust=True)
    assert "\n" not in str(caught.value)
