"""The indicators of attack failure on curves whose values are known, and on the ways of PGD."""

import pytest
import torch
from torch import nn

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.evaluation.attack_traces import Trace, has_graph, joined, trace_pgd
from counterpart.evaluation.failure_indicators import (
    behaviours_of,
    break_point_angle,
    convergence,
    increasing_loss,
    normalised,
    restless_share,
    unfinished,
    zero_gradients,
)
from counterpart.seeding import Keys


def rising(*values):
    """The losses (S + 1, 1) that an attack raises, from what it minimises."""
    return -torch.tensor(values)[:, None]


def test_losses_are_turned_and_scaled():
    assert normalised(rising(5.0, 2.0, 1.0)).flatten().tolist() == [1.0, 0.25, 0.0]
    assert normalised(rising(3.0, 3.0)).flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("curve", "cosine"),
    [
        ((1.0, 0.75, 0.5, 0.25, 0.0), 1.0),  # still falling: flat
        ((2.0, 2.0, 2.0), 1.0),  # never fell
        (
            (1.0, 0.0, 0.0),
            5**-0.5,
        ),  # the corner lies at (1/2, 0): cos of the angle between (-1/2, 1) and (1/2, 0)
        ((1.0,) + 100 * (0.0,), 0.01),  # fell at once: nearly right
    ],
)
def test_break_point_angle(curve, cosine):
    assert break_point_angle(rising(*curve)).item() == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize(
    ("curve", "area"),
    [
        ((1.0, 0.5, 0.0), 0.0),  # never rises
        ((1.0, 0.0, 0.5, 0.25), 0.25),  # rises once, from 0 to 1/2
        ((0.0, 1.0, 0.6, 1.0), (0.5 + 0.8) / 2),
        ((1.0, 0.9, 1.0, 0.9, 1.0, 0.0), 0.95),  # fluctuates around its maximum
    ],
)
def test_increasing_loss(curve, area):
    assert increasing_loss(rising(*curve)).item() == pytest.approx(area, abs=1e-6)


def test_zero_gradients_are_counted():
    assert zero_gradients(torch.tensor([[0.0, 1.0], [0.0, 0.0], [1e-30, 1.0], [0.0, 2.0]])).tolist() == [
        0.75,
        0.25,
    ]


@pytest.mark.parametrize(("gain", "still"), [(0.04, False), (0.06, True)])
def test_an_attack_that_still_gains_is_unfinished(gain, still):
    curve = [1.0] + [gain] * 10 + [0.0, 0.5]
    assert unfinished(rising(*curve)).tolist() == [still]
    assert unfinished(rising(1.0, *([0.0] * 10))).tolist() == [False]


def trace(losses, claims, fooled, lengths=None):
    """A trace of one step of each image."""
    losses = torch.tensor(losses).T
    given = torch.ones(len(losses) - 1, losses.shape[1]) if lengths is None else torch.tensor(lengths).T
    return Trace(losses, given, torch.tensor(claims).T, torch.tensor(fooled).T, True, 4, 1)


STANDS = [False, False, False]


def measured(made):
    return {behaviour.name: behaviour for behaviour in behaviours_of(made)}


def test_what_was_met_and_passed_over_is_a_silent_success():
    honest = trace([[0.0, 1.0, 2.0]] * 2, [[False, True, False], STANDS], [[False, True, False], STANDS])
    assert honest.returned.tolist() == [1, 2]
    assert honest.stands.tolist() == [False, True]
    assert measured(honest)["no silent success"].honest
    passed = trace([[0.0, 1.0, 2.0]] * 2, [STANDS, STANDS], [[False, True, False], STANDS])
    behaviour = measured(passed)["no silent success"]
    assert behaviour.honest is False
    assert behaviour.numbers == {"silent successes": 0.5}


def test_successes_that_do_not_carry_over():
    made = trace([[0.0, 1.0, 2.0]] * 2, [[False, True, True], STANDS], [STANDS, STANDS])
    assert measured(made)["attacks carry over to the model"].numbers == {"successes that do not": 1.0}
    assert measured(made)["attacks carry over to the model"].honest is False


def test_zero_gradients_of_failed_attacks_alarm():
    lengths = [[1.0, 0.0], [0.0, 0.0]]
    fell = trace([[0.0, 1.0, 2.0]] * 2, [STANDS, [True] * 3], [STANDS, [True] * 3], lengths)
    behaviour = measured(fell)["gradients are there and not zero"]
    assert behaviour.honest is False
    assert behaviour.numbers == {
        "zero gradients": 0.5,
        "images with some": 1.0,
    }  # the second fell: it does not count
    lengths = [[1.0, 1.0], [0.0, 0.0]]
    fell = trace([[0.0, 1.0, 2.0]] * 2, [STANDS, [True] * 3], [STANDS, [True] * 3], lengths)
    assert measured(fell)["gradients are there and not zero"].honest


def test_longer_attacks_alarm_only_for_what_they_find():
    short = trace([[0.0, 1.0, 2.0]] * 2, [STANDS] * 2, [STANDS] * 2)
    assert restless_share(short) == 1.0
    longer = trace([[0.0, 1.0, 2.0]] * 2, [STANDS, [False, True, True]], [STANDS, [False, True, True]])
    nobody = torch.tensor([False, False])
    assert convergence(short, short, nobody).honest
    alarm = convergence(short, longer, nobody)
    assert alarm.honest is False
    assert alarm.numbers["longer alone"] == 0.5
    assert convergence(short, longer, torch.tensor([False, True])).honest  # APGD had felled it anyway
    rest = trace([[0.0] + [1.0] * 11] * 2, [[False] * 12] * 2, [[False] * 12] * 2)
    assert restless_share(rest) == 0.0
    assert convergence(rest, None, nobody).honest


@pytest.fixture
def linear():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return model, Batch(images, model(images).argmax(dim=1), torch.arange(6))


def test_the_way_of_pgd_on_a_linear_model(linear):
    model, batch = linear
    keys = Keys(0, "t", batch.index)
    made = trace_pgd(model, model, batch, Linf(0.02), keys, steps=20)
    assert made.losses.shape == (21, 6)
    assert made.lengths.shape == (20, 6)
    assert torch.equal(made.claims, made.fooled)
    assert (made.losses[-1] >= made.losses[0]).all()
    assert (made.forwards, made.backwards) == (42, 20)
    halves = [trace_pgd(model, model, batch.select(rows), Linf(0.02), keys[rows], steps=20)
              for rows in (torch.arange(2), torch.arange(2, 6))]  # fmt: skip
    torch.testing.assert_close(joined(halves).losses, made.losses)
    assert model.training is False
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_answers_without_a_graph_have_zero_gradients(linear):
    model, batch = linear

    class Cut(nn.Module):
        def forward(self, images):
            return model(images.detach())

    made = trace_pgd(Cut(), Cut(), batch, Linf(0.02), Keys(0, "t", batch.index), steps=3)
    assert not made.has_graph
    assert (made.lengths == 0).all()
    assert measured(made)["gradients are there and not zero"].honest is False
    assert has_graph(model, batch.images)
