"""The examples do what they say: closed forms agree with a numerical optimum, and a loop of one's own trains."""

import inspect
import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import counterpart
from counterpart.data import load_digits

TOY = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "two_pixels.py"))
OWN = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "own_loop.py"))
GRID = list(product((-1.5, 0.0, 0.3), (-0.4, 2.0), (0.02, 0.1), (0.05, 0.2), (-0.7, 0.0, 1.0)))


@pytest.mark.parametrize("problem", GRID, ids=str)
def test_the_corner_is_the_numerical_optimum(problem):
    w1, w2, eps1, eps2, label = problem
    weights, budgets, residual = (w1, w2), (eps1, eps2), w1 * 0.4 + w2 * 0.1 - label
    best = TOY["numerical"](weights, residual, budgets)
    corner = TOY["corner"](weights, residual, budgets)
    assert (np.abs(corner) == budgets).all()
    assert TOY["loss"](corner, weights, residual) == pytest.approx(
        TOY["loss"](best, weights, residual), abs=1e-9
    )
    if w1 != 0 and abs(residual) > 1e-9:
        np.testing.assert_allclose(corner, best, atol=1e-9)


def test_the_other_cases_fulfil_the_conditions_at_zero_loss():
    seen = {"inside": 0, "bound": 0}
    for w1, w2, eps1, eps2, label in GRID:
        weights, budgets, residual = (w1, w2), (eps1, eps2), 0.1 * (w1 + w2 - label)
        center = TOY["inside"](weights, residual, budgets)
        edges = TOY["one_at_its_bound"](weights, residual, budgets)
        for delta in [center] * (center is not None) + edges:
            assert TOY["loss"](delta, weights, residual) == pytest.approx(0, abs=1e-20)
            assert (np.abs(delta) <= budgets).all()
        seen["inside"] += center is not None
        seen["bound"] += len(edges)
    assert all(seen.values())


def test_it_prints_every_case(capsys):
    TOY["main"]()
    text = capsys.readouterr().out
    assert all(case in text for case in ("(i) inside", "(ii) corner", "(iii) one at", "numerical optimum"))


def test_a_loop_of_one_s_own_has_at_most_15_lines():
    source = inspect.getsource(OWN["train_epoch"]).split('"""')[2]
    assert 10 <= len(source.strip().splitlines()) <= 15
    for name in ("cp.pgd", "cp.trades_loss", "cp.mart_loss", "cp.masked_budget", "cp.layer_map"):
        assert name in source


@pytest.mark.parametrize("method", OWN["METHODS"])
def test_a_loop_of_one_s_own_trains(method, monkeypatch):
    budgets, attack = [], counterpart.pgd

    def spy(*arguments, budget, **options):
        budgets.append(budget)
        return attack(*arguments, budget=budget, **options)

    monkeypatch.setattr(counterpart, "pgd", spy)
    data = load_digits()
    images, labels = data.train.pixels[:512].float() / 255, data.train.labels[:512]
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        model = OWN["Network"]()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    batches = list(zip(images.split(64), labels.split(64), strict=True))
    for epoch in range(4):
        OWN["train_epoch"](model, batches, optimizer, method, eps=4 / 255, eps_low=2 / 255, seed=8 * epoch)
    with torch.no_grad():
        answers = model.eval()(images).argmax(dim=1)
    assert (answers == labels).float().mean() > 0.6  # 0.1 is chance
    radii = torch.as_tensor(budgets[-1].eps).unique().tolist()
    assert radii == pytest.approx([2 / 255, 4 / 255] if method == "part" else [4 / 255])
