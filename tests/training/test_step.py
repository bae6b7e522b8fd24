"""A step checks what it is given, and its weights stay where a gradient is not finite."""

import pytest
import torch
from torch import nn

from counterpart.batch import Batch
from counterpart.checks import check_labels, check_unit_range
from counterpart.contracts import Loss, Objective
from counterpart.models.inference import InferenceView
from counterpart.objectives import standard
from counterpart.training.meter import BrokenStep
from counterpart.training.step import LoopOptions, Phase, Running, train_step

CPU = torch.device("cpu")


def refuses(check, *given):
    try:
        check(*given)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(("device", "checked"), [("cpu", [True, True, True]), ("cuda", [True, False, False])])
def test_the_door_checks_every_step_on_a_processor_and_the_first_on_a_device(device, checked):
    running, seen = Running(), []
    for _ in checked:
        with running.door(torch.device(device)):
            of_labels = refuses(check_labels, torch.tensor([0, 7]), 3)
            of_images = refuses(check_unit_range, torch.tensor([0.0, torch.nan]))
        assert of_labels == of_images
        seen.append(of_labels)
        assert refuses(check_labels, torch.tensor([7]), 3)  # behind the door everything is checked again
    assert seen == checked


def test_a_gradient_that_is_not_finite_stops_before_the_weights_move():
    """The loss itself is finite: the square root of 0 has no slope."""

    def loss(model, batch, perturbed):
        made = standard().loss(model, batch, perturbed)
        return Loss(made.total + (made.total - made.total.detach()).sqrt(), made.terms)

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = [parameter.clone() for parameter in model.parameters()]
    batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.arange(2))
    phase = Phase("p", 1, Objective(standard().perturb, loss))
    options = LoopOptions(batch_size=2, seed=0, device=CPU, augmentation=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(BrokenStep, match=r"not finite \(loss \d"):
        train_step(batch, 2, 0, 0, model, InferenceView(model), phase, optimizer, options)
    assert all(torch.equal(then, now) for then, now in zip(before, model.parameters(), strict=True))
