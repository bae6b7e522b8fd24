import pytest
import torch
from torch import nn

from counterpart.training.optimizers import schedule, sgd


def rate(name, **changes):
    options = {"lr": 1.0, "epochs": 80, "milestones": (0.75,), "gamma": 0.1, "warmup_epochs": 0.0}
    return schedule(name, **{**options, **changes})


def test_piecewise_counts_absolute_epochs():
    """The published code counts from the end of the burn-in and so decays in the last epoch only."""
    at = rate("piecewise")
    assert [at(e) for e in (0, 20, 59, 59.99)] == [1.0] * 4
    assert at(60) == pytest.approx(0.1)
    assert at(79.9) == pytest.approx(0.1)
    twice = rate("piecewise", milestones=(0.5, 0.75), epochs=8)
    assert [twice(e) for e in (3.9, 4, 5.9, 6)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_cosine_and_warmup():
    at = rate("cosine")
    assert at(0) == 1
    assert at(40) == pytest.approx(0.5)
    assert at(80) == pytest.approx(0)
    warm = rate("constant", warmup_epochs=2.0)
    assert 0 < warm(0) < 0.01
    assert warm(1) == pytest.approx(0.5, abs=1e-3)
    assert warm(2) == 1


def test_decay_spares_one_dimensional_parameters_on_request():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.5}
    spared = sgd(model, decay_norm=False, **options)
    decays = {id(p): group["weight_decay"] for group in spared.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.5, 0.0, 0.0, 0.0]
    everything = sgd(model, decay_norm=True, **options)
    assert [g["weight_decay"] for g in everything.param_groups] == [0.5]
    assert sum(p.numel() for g in everything.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )


def test_decay_spares_parameters_by_name():
    model = nn.Module()
    model.bn1, model.conv, model.down = (
        nn.BatchNorm2d(4),
        nn.Conv2d(3, 4, 3),
        nn.Sequential(nn.BatchNorm2d(4)),
    )
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.5, "decay_norm": True}
    optimizer = sgd(model, no_decay=("bias", "bn"), **options)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        "bn1.weight": 0.0,
        "bn1.bias": 0.0,
        "conv.weight": 0.5,
        "conv.bias": 0.0,
        "down.0.weight": 0.5,  # a batch norm that its name does not give away, as in the published code
        "down.0.bias": 0.0,
    }


def test_a_step_follows_the_textbook():
    weight = nn.Parameter(torch.tensor([[2.0]]))
    model = nn.Module()
    model.weight = weight
    optimizer = sgd(model, lr=0.1, momentum=0.5, nesterov=False, weight_decay=0.1, decay_norm=True)
    for _ in range(2):
        weight.grad = torch.tensor([[1.0]])
        optimizer.step()
    # v1 = 1 + .2 = 1.2, w = 1.88; v2 = .6 + 1.188 = 1.788, w = 1.7012
    assert weight.item() == pytest.approx(1.7012)
