"""Generated cases of every attack, and the judge that counts what goes wrong: ``benchmarks/attack_cases.py``."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from counterpart.budget import L0, L1, L2, Linf, Patch
from counterpart.catalogue.attacks import ATTACKS
from counterpart.contracts import Attacked

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = [name for name in (*ATTACKS, "transfer", "worst-case") if name != "autoattack"]

MORE_CASES = {"carlini-wagner": 60, "ddn": 40, "fmn": 20}  # which seldom find an image within few steps


@pytest.fixture(scope="module")
def benchmark_module():
    """A module of the benchmarks by its name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def cases(benchmark_module):
    """The campaign."""
    return benchmark_module("attack_cases")


@pytest.mark.parametrize("name", NAMES)
def test_what_an_attack_returns_is_allowed_and_a_number(cases, name):
    counts = cases.run(name, range(MORE_CASES.get(name, 12)), seed=1)
    assert counts.first == {}
    assert counts.images > counts.cases / 2
    assert counts.moved > 0


@pytest.mark.slow
def test_what_autoattack_returns_is_allowed_and_a_number(cases):
    assert cases.run("autoattack", range(2), seed=5).first == {}


def test_every_attack_gets_cases(cases):
    assert set(cases.attacks()) == {*NAMES, "autoattack"}
    spread = cases.spread(100_000, list(cases.attacks()))
    assert sum(spread.values()) >= 100_000
    assert min(spread.values()) > 50


@pytest.fixture
def case(benchmark_module):
    """budget -> a case of two grey images under it."""
    draws = benchmark_module("case_draws")
    grey, labels = torch.full((2, 1, 3, 4), 0.5), torch.zeros(2, dtype=torch.int64)
    return lambda budget: draws.Case(torch.nn.Identity(), grey, labels, budget, {}, at_the_door=False)


def answer(images, **more):
    none = torch.zeros(len(images), dtype=torch.int64)
    return Attacked(images, none, none, **more)


def moved(*changes):
    """The grey images, the second of which moves at some places (y, x)."""
    images = torch.full((2, 1, 3, 4), 0.5)
    for y, x, change in changes:
        images[1, 0, y, x] += change
    return images


FROZEN = torch.ones(2, 1, 3, 4)
FROZEN[1, 0, 2, 3] = 0


@pytest.mark.parametrize(
    ("budget", "inside", "outside"),
    [
        (Linf(0.1), [(0, 0, 0.1)], [(0, 0, 0.10001)]),
        (Linf(torch.tensor([0.3, 0.1])), [(0, 0, 0.1)], [(0, 0, 0.2)]),
        (Linf(0.1 * FROZEN), [(0, 0, 0.1)], [(2, 3, 1e-6)]),
        (L2(0.25), [(0, 0, 0.15), (1, 1, 0.2)], [(0, 0, 0.16), (1, 1, 0.2)]),
        (L2(0.25, FROZEN), [(0, 0, 0.1)], [(2, 3, 1e-6)]),
        (L1(0.25), [(0, 0, 0.125), (1, 1, 0.125)], [(0, 0, 0.15), (1, 1, 0.125)]),
        (L0(2), [(0, 0, 0.5), (2, 3, 0.5)], [(0, 0, 0.5), (2, 3, 0.5), (1, 1, 1e-6)]),
        (Patch(2), [(0, 1, 0.5), (1, 2, 0.5)], [(0, 1, 0.5), (0, 3, 0.5)]),
    ],
)
def test_the_judge_tells_the_last_allowed_image_from_the_next(cases, case, budget, inside, outside):
    assert dict(cases.judge(case(budget), answer(moved(*inside)))) == {}
    assert dict(cases.judge(case(budget), answer(moved(*outside)))).keys() == {"outside budget"}


@pytest.mark.parametrize(
    ("attacked", "kind"),
    [
        (answer(moved((0, 0, torch.nan))), "not numbers"),
        (answer(moved(), distances=torch.tensor([0.0, torch.nan])), "not numbers"),
        (answer(moved((0, 0, 0.6))), "outside box"),
        (answer(moved().double()), "other shapes"),
        (answer(moved()[:1]), "other shapes"),
        (replace(answer(moved()), forwards=torch.tensor([0, -1])), "other shapes"),
    ],
)
def test_the_judge_names_each_kind_of_fault(cases, case, attacked, kind):
    assert kind in dict(cases.judge(case(Linf(1.0)), attacked))


def test_an_attack_that_ends_in_an_exception_is_counted(cases, case):
    def breaks(*args, **options):
        raise RuntimeError("no")

    assert cases.faults_of(breaks, case(Linf(0.1))) == ({"errors": "RuntimeError: no"}, 0)


@pytest.mark.parametrize("name", ["records", "units", "checkpoints"])
def test_what_is_written_is_read_again_bit_for_bit(benchmark_module, name):
    record = benchmark_module("round_trips").run(name, range(20), seed=1)
    assert record.details["first"] == ""
    assert (record.value, record.n) == (0, 20)


def test_a_value_that_comes_back_otherwise_is_counted(benchmark_module, monkeypatch):
    trips = benchmark_module("round_trips")
    monkeypatch.setattr(trips.records, "read", lambda path: [])
    assert trips.run("records", range(3), seed=1).value == 3
