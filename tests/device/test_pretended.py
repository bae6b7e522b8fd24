"""The pretended device itself: it refuses what CUDA refuses, and counts what waits."""

import copy

import pytest
import torch
from tests.device.pretended import Mixed, pretend_device
from torch import nn
from torch.nn import functional as F


def test_a_tensor_lies_where_it_was_put_and_so_does_what_is_made_of_it(device):
    here = torch.arange(6.0)
    there = here.to("cuda")
    assert (here.device.type, there.device.type) == ("cpu", "cuda")
    assert there.is_cuda
    assert not there.is_cpu
    for made in (
        there.view(2, 3).T,
        there + 1,
        torch.zeros_like(there),
        there.double(),
        there.new_zeros(2),
        there[1:],
    ):
        assert made.is_cuda
    assert not there.cpu().is_cuda
    assert torch.equal(there.cpu(), here)
    assert here.to(there).is_cuda
    assert torch.ones(2, device="cuda").is_cuda
    assert copy.deepcopy(there).is_cuda
    assert here.device.type == "cpu"


def test_what_mixes_places_raises_and_numbers_may(device):
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    for operation in (torch.add, torch.dot, lambda a, b: torch.cat([a, b]), torch.maximum):
        with pytest.raises(Mixed, match=r"\(3,\) on cuda:0"):
            operation(there, here)
    with pytest.raises(Mixed, match="numpy"):
        there.numpy()
    with pytest.raises(Mixed):
        here[torch.tensor([0], device="cuda")]
    assert (there * torch.tensor(2.0)).is_cuda


@pytest.mark.parametrize(
    ("waits", "work"),
    [
        (0, lambda x: (x * 2).sum().clamp_min(0)),
        (0, lambda x: torch.where(x > 0, 0.0, x)),
        (0, lambda x: x.masked_fill(x > 0, 1.0)),
        (0, lambda x: F.one_hot((x > 0).long(), 2)),
        (0, lambda x: torch.full((), 1.5, device=x.device)),
        (1, lambda x: float(x.sum())),
        (1, lambda x: bool((x > 0).any())),
        (1, lambda x: x[x > 0]),
        (1, lambda x: (x > 0).nonzero()),
        (1, lambda x: x.cpu()),
        (1, lambda x: x.tolist()),
        (1, lambda x: torch.tensor(1.5, device=x.device)),
        (1, lambda x: torch.as_tensor(1.5, device=x.device)),
        (1, lambda x: x.clone().copy_(torch.ones(4))),
        (1, lambda x: x[torch.tensor([1])]),
    ],
)  # fmt: skip
def test_waits_of_the_host_are_counted(device, waits, work):
    there = torch.arange(4.0, device="cuda")
    with device.counting() as counts:
        work(there)
    assert counts.waits.total() == waits, counts.describe()


def test_writing_a_number_through_a_mask_does_not_wait_and_other_values_do(device):
    there = torch.arange(4.0, device="cuda")
    with device.counting() as counts:
        there[there > 2] = 0.0
    assert counts.waits.total() == 0, counts.describe()
    with device.counting() as counts:
        there[there > 0] = torch.arange(2.0, device="cuda")
    assert counts.waits.total() == 1, counts.describe()
    assert there.tolist() == [0.0, 0.0, 1.0, 0.0]


def test_launches_are_what_computes_and_belong_to_a_line(device):
    from counterpart.budget import arithmetic

    there = torch.rand(2, 3, 4, 4, device="cuda")
    with device.counting() as counts:
        there.view(2, 48).t().unsqueeze(0)
    assert counts.launches.total() == 0
    with device.counting() as counts:
        arithmetic.in_box(there)
    assert counts.launches.total() == 4
    assert {line.partition(":")[0] for line in counts.launches} == {"budget/arithmetic.py"}


def test_a_network_trains_there_and_its_gradients_lie_there(device):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).to("cuda")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with device.counting() as counts:
        loss = F.cross_entropy(
            net(torch.rand(3, 1, 4, 4, device="cuda")), torch.ones(3, dtype=torch.int64, device="cuda")
        )
        loss.backward()
        optimizer.step()
    assert all(p.is_cuda and p.grad.is_cuda for p in net.parameters())
    assert counts.waits.total() == 0, counts.describe()


def test_after_the_block_there_is_no_device_any_more():
    before = torch.cuda.is_available()
    with pretend_device():
        assert torch.cuda.is_available()
    assert torch.cuda.is_available() == before
