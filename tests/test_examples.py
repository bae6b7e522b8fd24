"""The two-pixel example: closed forms agree with a numerical optimum over a grid."""

import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest

TOY = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "two_pixels.py"))
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
