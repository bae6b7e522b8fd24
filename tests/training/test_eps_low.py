"""The search for eps_low: its decisions by hand, and that a run makes them whatever happens to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterpart import build, jobs
from counterpart.config import plain
from counterpart.importance import rules
from counterpart.rundir import RunDir
from counterpart.training import checkpoint
from counterpart.training.eps_low import STEPS, eps_low_after

SOURCE = str(Path(__file__).parents[2] / "src")


def levels(robust, images=100):
    """The level of each epoch of a phase with these validations, in eighths of eps."""
    return [
        round(STEPS * eps_low_after(robust[:done], images=images, eps=1.0)) for done in range(len(robust) + 1)
    ]


def test_it_starts_at_eps_to_the_bit():
    for eps in (8 / 255, 0.1, 1 / 3):
        assert eps_low_after([], images=10, eps=eps) == eps
        assert eps_low_after([0.4], images=10, eps=eps) == eps


@pytest.mark.parametrize(
    ("robust", "expected"),
    [
        # One error at 0.5 on 100 images is 0.05.
        ([0.50, 0.51, 0.50, 0.52], [8, 8, 7, 6, 5]),  # settled: a step each
        ([0.30, 0.40, 0.50, 0.60], [8, 8, 8, 8, 8]),  # still rising: nothing is tried
        ([0.50, 0.50, 0.44, 0.50, 0.50], [8, 8, 7, 8, 8, 8]),  # lost at 7: back, and never again
        ([0.50, 0.50, 0.50, 0.44, 0.43, 0.42], [8, 8, 7, 6, 7, 8, 8]),  # overfitting: back to eps, and no farther
        ([0.50, 0.48, 0.47, 0.46, 0.44], [8, 8, 7, 6, 5, 6]),  # small losses add up
        ([0.50] * 12, [8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0]),  # nothing is below 0
    ],
)  # fmt: skip
def test_decisions_by_hand(robust, expected):
    assert levels(robust) == expected


def test_a_larger_split_sees_smaller_losses():
    robust = [0.50, 0.50, 0.47]
    assert levels(robust, images=100)[-1] == 6
    assert levels(robust, images=10_000)[-1] == 8


def test_no_images_are_no_evidence():
    with pytest.raises(ValueError, match="validation images"):
        eps_low_after([0.5], images=0, eps=0.1)


def test_the_phase_draws_its_rule_from_the_validations(tiny):
    burn_in, main = build.phases(tiny(part={"eps_low": "auto"}), 100)
    assert burn_in.adapt is None
    following = main.adapt([[0.9, 0.5], [0.9, 0.5], [0.9, 0.5]])
    assert following.chosen == {"eps_low": 0.1 * 6 / 8}
    rule = following.objective.perturb.keywords["rule"]
    assert rule.func is rules.part
    assert (rule.keywords["eps"], rule.keywords["eps_low"]) == (0.1, 0.1 * 6 / 8)
    assert main.adapt([]).objective.perturb.keywords["rule"].keywords["eps_low"] == 0.1
    assert build.phases(tiny(), 100)[1].adapt is None


SEARCH = {
    "part": {"eps_low": "auto", "burn_in": 0.2},
    "data": {"limit": 48},
    "train": {"epochs": 5, "batch_size": 24},
    "optimizer": {"lr": 1e-3},
}


def lows(run):
    return [r.details.get("eps_low") for r in run.records() if r.kind == "epoch"]


def test_a_run_that_stops_anywhere_searches_the_same_and_ends_with_the_same_bits(tiny):
    whole = jobs.train(tiny(name="whole", **SEARCH)).run
    steps = lows(whole)
    assert steps[:3] == [None, 0.1, 0.1]
    assert steps[-1] < 0.1
    pieces = tiny(name="pieces", **SEARCH)
    stopping = pieces.model_copy(update={"train": pieces.train.model_copy(update={"stop_after": 1e-9})})
    starts = 0
    while not jobs.train(stopping).finished:
        starts += 1
        assert starts < 20
    run = RunDir(pieces.runs / "pieces")
    assert lows(run) == steps
    (one, about), (other, _) = (checkpoint.read(each.checkpoint("last")) for each in (whole, run))
    assert all((one[name] == other[name]).all() for name in one)
    assert about["eps_low"] == steps[-1]
    [judged] = jobs.evaluate(
        str(run.path), {"evaluate": {"n": 20, "attacks": [{"steps": 1}], "weights": "last"}}
    )
    assert judged.records[0].details["trained_eps_low"] == steps[-1]


def test_a_search_that_never_leaves_eps_is_adversarial_training_bit_for_bit(tiny):
    short = {"epochs": 3}  # one epoch of burn-in, and two that are needed to compare
    at = jobs.train(tiny(name="at", train={**short, "method": "at"})).run
    auto = jobs.train(tiny(name="auto", train=short, part={"eps_low": "auto"})).run
    (one, _), (other, _) = (checkpoint.read(run.checkpoint("last")) for run in (at, auto))
    assert lows(auto) == [None, 0.1, 0.1]
    assert all((one[name] == other[name]).all() for name in one if name.startswith("model."))


SCRIPT = """
import json, sys
import torch
torch.set_num_threads(1)
from counterpart import distributed, jobs
from counterpart.config import resolve
jobs.train(resolve(json.loads(sys.argv[1])))
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_search_like_one(tiny, tmp_path):
    """At a learning rate so small that batch norm's local statistics change no answer."""
    settings = {**SEARCH, "optimizer": {"lr": 1e-6}}
    two = tiny(name="two", **settings)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*words, json.dumps(plain(two))], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one = jobs.train(tiny(name="one", **settings)).run
    assert lows(RunDir(two.runs / "two")) == lows(one)
    assert lows(one)[-1] < 0.1
