"""The binarisation test: planted adversarial images exist, honest attacks find them, and broken gradients do not."""

import pytest
import torch
from torch import nn

from counterpart.batch import Batch
from counterpart.budget import L1, L2, Linf
from counterpart.evaluation.planted import Planted, behaviour_of, discriminator, plant
from counterpart.seeding import Keys

EFFORT = {"steps": 40, "points": 99, "draws": 50}


def network(before=None, after=None):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 64), nn.ReLU(), nn.Linear(64, 4)]
    return nn.Sequential(*filter(None, [before, *layers, after])).eval()


class Does(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, values):
        return self.function(values)


@pytest.fixture
def batch():
    images = 0.2 + 0.6 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.zeros(12, dtype=torch.int64), torch.arange(12))


def planted(model, batch, budget=Linf(0.1)):  # noqa: B008 - a budget never changes
    return plant(model, batch, budget, Keys(0, "t", batch.index), **EFFORT)


@pytest.mark.parametrize("budget", [Linf(0.1), L2(0.5), L1(4.0)], ids=["linf", "l2", "l1"])
def test_pgd_finds_what_is_planted_in_an_honest_network(batch, budget):
    made = planted(network(), batch, budget)
    assert made.exists.float().mean() > 0.5
    assert torch.equal(made.attacked, made.exists)
    assert made.drawn.sum() < made.exists.sum() / 2  # there is something to find that chance does not find
    assert made.layer == "features that enter its last layer"
    assert behaviour_of(made).honest
    assert (made.forwards, made.backwards) == (99 + 3 + 50 + 41, 40)


def test_pgd_does_not_find_it_behind_a_staircase(batch):
    made = planted(network(Does(lambda x: (x * 16).round() / 16)), batch)
    assert made.exists.any()
    assert not made.attacked.any()
    assert behaviour_of(made).honest is False


def test_what_follows_the_last_layer_is_kept(batch):
    assert planted(network(after=Does(lambda z: torch.tanh(30 * z))), batch).layer == "logits"


def test_logits_so_large_that_the_loss_is_flat_are_kept(batch):
    model = network()
    with torch.no_grad():
        model[-1].weight.mul_(1e5)
    made = planted(model, batch)
    assert made.exists.any()
    assert made.attacked.sum() < made.exists.sum() / 2


def test_the_test_leaves_the_model_as_it_was(batch):
    model = network()
    planted(model, batch)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_threshold_lies_close_to_the_boundary_point():
    inside = torch.tensor([[0.0, 0.0], [0.1, 0.2], [-0.1, 0.1], [0.0, -0.3]])[:, None]
    point = torch.tensor([[1.0, 0.0]])
    weight, bias = discriminator(inside, point)
    scores = (inside[:, 0] * weight).sum(dim=1) + bias
    top = ((point * weight).sum(dim=1) + bias).item()
    assert (scores < 0).all()
    assert top > 0
    assert top / (top - scores.max()) == pytest.approx(0.001, rel=0.05)


def test_nothing_is_planted_where_no_point_stands_out():
    inside = torch.tensor([[1.0], [-1.0], [3.0]])[:, None]
    weight, bias = discriminator(inside, torch.tensor([[2.0]]))
    assert weight.item() == 0
    assert bias.item() < 0


@pytest.mark.parametrize(("hits", "honest"), [(95, True), (94, False)])
def test_the_threshold_is_that_of_the_paper(hits, honest):
    everything = torch.ones(100, dtype=torch.bool)
    made = Planted(everything, torch.arange(100) < hits, ~everything, "logits", 1, 1)
    assert behaviour_of(made).honest is honest
    nothing = Planted(~everything, ~everything, ~everything, "logits", 1, 1)
    assert behaviour_of(nothing).honest is None
