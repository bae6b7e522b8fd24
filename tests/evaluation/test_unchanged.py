"""A model that changes while it is judged is noticed by its bits, wherever in its state they lie."""

import pytest
import torch
from torch import nn

from counterpart.evaluation.unchanged import remember


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 2).double())


def test_a_model_at_rest_is_unchanged_also_where_it_holds_nan(model):
    model[1].running_mean[0] = torch.nan
    model.to(memory_format=torch.channels_last)
    is_unchanged = remember(model)
    assert is_unchanged()
    assert is_unchanged()


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model[0].weight.data[1, 0, 2, 2].mul_(1 + 2e-7),
        lambda model: model[1].num_batches_tracked.add_(1),
        lambda model: model[1].running_var.fill_(-0.0),
        lambda model: model[2].float(),
        lambda model: setattr(model[0], "bias", None),
        lambda model: model.register_buffer("more", torch.ones(1)),
    ],
    ids=["a bit of a weight", "a counter", "a sign of zero", "a type", "a tensor less", "a tensor more"],
)
def test_any_change_is_noticed(model, change):
    model[1].running_var.zero_()
    is_unchanged = remember(model)
    change(model)
    assert not is_unchanged()


def test_a_change_that_is_undone_is_none(model):
    is_unchanged = remember(model)
    before = model[0].weight.detach().clone()
    model[0].weight.data.add_(1)
    assert not is_unchanged()
    model[0].weight.data.copy_(before)
    assert is_unchanged()
