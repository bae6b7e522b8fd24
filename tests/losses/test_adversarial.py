"""The losses of TRADES and MART as functions of logits, by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from counterpart import mart_loss, trades_loss


@pytest.fixture
def answers(generator):
    clean, attacked = (torch.randn(6, 4, generator=generator) for _ in range(2))
    return clean.requires_grad_(), attacked.requires_grad_(), torch.tensor([0, 1, 2, 3, 0, 1])


def test_trades(answers):
    clean, attacked, labels = answers
    p, q = clean.softmax(dim=1), attacked.softmax(dim=1)
    natural, robust = F.cross_entropy(clean, labels).item(), (p * (p / q).log()).sum(dim=1).mean().item()
    loss = trades_loss(clean, attacked, labels, beta=3.0).item()
    assert loss == pytest.approx(natural + 3 * robust, rel=1e-5)
    assert trades_loss(clean, attacked, labels).item() == pytest.approx(natural + 6 * robust, rel=1e-5)


def test_mart(answers):
    clean, attacked, labels = answers
    p, q, rows = clean.softmax(dim=1), attacked.softmax(dim=1), torch.arange(6)
    wrong = q.clone()
    wrong[rows, labels] = 0
    boosted = -(q[rows, labels].log() + (1 - wrong.amax(dim=1)).log()).mean()
    robust = ((p * (p / q).log()).sum(dim=1) * (1 - p[rows, labels])).mean()
    expected = (boosted + 3 * robust).item()
    assert mart_loss(clean, attacked, labels, beta=3.0).item() == pytest.approx(expected, rel=1e-3)
    assert mart_loss(clean, attacked, labels).item() == pytest.approx((boosted + 6 * robust).item(), rel=1e-3)


def test_mart_stays_finite_where_answers_are_certain():
    """By the published code's small numbers: 1e-12 beside a probability of 0, 1.0001 less one of 1."""
    clean, attacked = torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([[0.0, 200.0, 0.0]])
    boosted = 200 - math.log(1.0001 - 1)
    robust = -math.log(1e-12) * 2**-23  # which is 1.0000001 - 1 in float32
    loss = mart_loss(clean, attacked, torch.tensor([0]), beta=1e9).item()
    assert loss == pytest.approx(boosted + 1e9 * robust, rel=5e-3)


@pytest.mark.parametrize("loss", [trades_loss, mart_loss])
def test_gradients_reach_both_answers(loss, answers):
    clean, attacked, labels = answers
    gradients = torch.autograd.grad(loss(clean, attacked, labels), [clean, attacked])
    assert all(gradient.abs().sum() > 0.1 for gradient in gradients)
