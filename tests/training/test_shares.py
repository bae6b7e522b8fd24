"""Batch norm over processes: by sums on a CPU, by the kernels of torch on CUDA."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpart import distributed
from counterpart.batch import Batch
from counterpart.errors import NotFinite
from counterpart.models.inference import InferenceView
from counterpart.objectives import standard
from counterpart.training import shares
from counterpart.training.step import LoopOptions, Phase, train_step

SOURCE = str(Path(__file__).parents[2] / "src")


def test_the_kernels_get_what_batch_norm_was_given(monkeypatch, generator):
    images, weight, bias = torch.randn(4, 3, 2, 2, generator=generator), torch.ones(3), torch.zeros(3)
    mean, variance, given = torch.zeros(3), torch.ones(3), []
    monkeypatch.setattr(shares, "_has_kernels", lambda input: True)
    monkeypatch.setattr(shares.SyncBatchNorm, "apply", lambda *arguments: given.append(arguments) or images)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with shares.as_whole(8):
        F.batch_norm(images, mean, variance, weight, bias, True, 0.2, 1e-4)
        F.batch_norm(images, mean, variance, weight, bias, False, 0.2, 1e-4)  # judges, and sums nothing
    [arguments] = given
    tensors = (images, weight, bias, mean, variance)
    assert all(here is there for here, there in zip(arguments[:5], tensors, strict=True))
    assert arguments[5:7] == (1e-4, 0.2)
    assert arguments[8] == 2


def test_a_processor_has_no_kernels():
    assert not shares._has_kernels(torch.zeros(1))


KERNELS = """
import torch
import torch.distributed as dist
from torch import nn
from counterpart import distributed
from counterpart.training import shares

dist.init_process_group("gloo")  # two processes on one device
generator = torch.Generator().manual_seed(0)
whole = torch.randn(9, 5, 4, 4, generator=generator)
ways = {}
for way, device in (("sums", "cpu"), ("kernels", "cuda")):
    norm = nn.BatchNorm2d(5).to(device)
    images = whole[distributed.share(9)].to(device).requires_grad_()
    with shares.as_whole(9):
        norm(images).square().sum().mul(norm.weight.sum()).backward()
    found = (images.grad, norm.weight.grad, norm.running_mean, norm.running_var)
    ways[way] = [tensor.cpu() for tensor in found]
for sums, kernels in zip(*ways.values()):
    torch.testing.assert_close(kernels, sums, rtol=1e-4, atol=1e-4)
dist.destroy_process_group()
"""


@pytest.mark.gpu
@pytest.mark.slow
def test_kernels_and_sums_agree(tmp_path):
    script = tmp_path / "kernels.py"
    script.write_text(KERNELS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *torchrun, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_requests_of_all_processes_are_one_message(monkeypatch):
    sent = []

    def all_reduce(tensor):
        sent.append(tensor.clone())
        tensor += torch.tensor([0, 1, 0])

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    assert distributed.any_of((True, False, False)) == [True, True, False]
    assert [tensor.tolist() for tensor in sent] == [[1, 0, 0]]


def test_a_loss_that_is_not_finite_elsewhere_stops_this_process_before_its_weights_move(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = [parameter.clone() for parameter in model.parameters()]
    batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.arange(2))
    options = LoopOptions(batch_size=4, seed=0, device=torch.device("cpu"), augmentation=None)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "sum_", lambda tensors: tensors[0].fill_(math.nan))
    with pytest.raises(NotFinite):
        train_step(
            batch, 4, 0, 0, model, InferenceView(model), Phase("p", 1, standard()),
            torch.optim.SGD(model.parameters(), lr=1.0), options,
        )  # fmt: skip
    assert all(torch.equal(then, now) for then, now in zip(before, model.parameters(), strict=True))
