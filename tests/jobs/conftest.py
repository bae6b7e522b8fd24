"""A run on digits, trained once, and attacks that cost next to nothing."""

import shutil
import sys

import pytest

from counterpart import jobs
from counterpart.config import resolve
from counterpart.rundir import RunDir


def trained(runs, name="digits", seed=0, limit=300):
    return jobs.train(
        resolve(
            {
                "name": name,
                "runs": str(runs),
                "device": "cpu",
                "seed": seed,
                "data": {"flip": False, "padding": 0, "limit": limit},
                "model": {"name": "wrn-10-1", "width": 4},
                "attack": {"eps": 0.05, "steps": 1},
                "train": {
                    "method": "at",
                    "epochs": 3,
                    "batch_size": 30,
                    "precision": "float32",
                    "validation_steps": 1,
                    "validation_n": 20,
                },
                "optimizer": {"lr": 0.1},
            }
        )
    ).run


@pytest.fixture(scope="session")
def master(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(master, tmp_path):
    """A copy of the trained run, of one's own."""
    shutil.copytree(master.path, tmp_path / "runs" / "digits")
    return RunDir(tmp_path / "runs" / "digits")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a module of the user's, forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    (tmp_path / "usernets.py").write_text(USER)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name == "usernets":
            del sys.modules[name]


USER = """
import torch
from torch import nn


class Answers(nn.Module):
    def __init__(self, change=lambda z: z, outputs=10):
        super().__init__()
        torch.random.default_generator.manual_seed(0)
        self.network, self.change = nn.Sequential(nn.Flatten(), nn.Linear(256, outputs)), change

    def forward(self, images):
        return self.change(self.network(images))


def robust():
    return Answers()

def three():
    return Answers(outputs=3)

def nan():
    return Answers(lambda z: z * torch.nan)

def flat():
    return Answers(lambda z: z.sum(dim=1))

def pair():
    return Answers(lambda z: (z, z))

def maps():
    return Answers(lambda z: z[:, :, None, None])

def wrapped():
    return Answers(lambda z: {"logits": z})

def half():
    return Answers().half()

def double():
    return Answers().double()

def binary():
    torch.random.default_generator.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 1))

def fails():
    return Answers(lambda z: {}["logits"])

def softmax():
    return Answers(lambda z: z.softmax(dim=1))

def graphless():
    return Answers(lambda z: z.detach())

def later():
    "Finite on one image alone."
    return Answers(lambda z: z / (len(z) == 1))

class Counting(Answers):
    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images):
        self.passes += 1
        return super().forward(images)

class Stuck(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 196, 10))

    def train(self, mode=True):
        return super().train(True)

    def forward(self, images):
        return self.network.train()(images)

def wants_colour():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 196, 10))
"""
