"""What steps measured is read together; a step that is not finite stops the weights and keeps its number."""

import pytest
import torch
from torch import nn

from counterpart.contracts import Loss
from counterpart.training.meter import BrokenStep, Meter


def note(meter, step, loss, images=4, healthy=True):
    terms = {"accuracy": torch.tensor(0.25)}
    counts = {"flat_maps": torch.tensor(3)}
    meter.note(step, images, Loss(torch.tensor(loss), terms), counts, torch.tensor(healthy))


def test_means_become_sums_over_images_and_sums_stay():
    meter = Meter(every=2)
    note(meter, 0, 2.0)
    assert not meter.is_due
    note(meter, 1, 0.5, images=2)
    assert meter.is_due
    assert meter.read() == {"images": 6, "loss": 9, "accuracy": 1.5, "flat_maps": 6}
    assert meter.read() == {}
    assert not meter.is_due


def test_the_first_step_that_is_not_healthy_is_reported_with_its_number_and_loss():
    meter = Meter(every=4)
    for step, loss in enumerate((1.0, torch.inf, torch.nan, 1.0), start=7):
        note(meter, step, loss, healthy=loss == 1.0)
    with pytest.raises(BrokenStep, match=r"not finite \(loss inf\)") as caught:
        meter.read()
    assert caught.value.step == 8


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_from_that_step_on_the_optimiser_does_nothing(kind):
    layer = nn.Linear(3, 2)
    optimizer = kind(layer.parameters(), lr=0.1, weight_decay=0.1, fused=True)
    meter, weights = Meter(every=10), []
    for step, healthy in enumerate((True, True, False, True)):
        value = 1.0 if healthy else torch.nan
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, value)
        note(meter, step, value, healthy=healthy)
        meter.freeze(optimizer)
        optimizer.step()
        weights.append(layer.weight.detach().clone())
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert torch.equal(weights[1], weights[3])


def test_where_every_step_is_read_nothing_is_frozen():
    optimizer, meter = torch.optim.SGD(nn.Linear(2, 2).parameters()), Meter()
    note(meter, 0, 1.0)
    meter.freeze(optimizer)
    assert not hasattr(optimizer, "found_inf")
