"""The search for eps_low: its decisions by hand, and that a run makes them whatever happens to it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from counterpart import build, jobs
from counterpart.budget import Linf
from counterpart.config import plain
from counterpart.importance import rules
from counterpart.rundir import RunDir
from counterpart.training import checkpoint
from counterpart.training.eps_low import STEPS, eps_low_after

SOURCE = str(Path(__file__).parents[2] / "src")


def levels(validated, images=100):
    """The level of each epoch of a phase with these validations, in eighths of eps."""
    found = [
        eps_low_after(validated[:done], images=images, eps=1.0) * STEPS for done in range(len(validated) + 1)
    ]
    assert all(level == round(level) for level in found)
    return found


def test_it_starts_at_eps_to_the_bit():
    for eps in (8 / 255, 0.1, 1 / 3):
        assert eps_low_after([], images=10, eps=eps) == eps


@pytest.mark.parametrize(
    ("masked", "expected"),
    [
        # Beside 0.50 under the full attack; one error on 100 images is 0.05.
        ([0.50, 0.51, 0.54, 0.549], [8, 7, 6, 5, 4]),
        ([0.50, 0.56, 0.54, 0.56, 0.56, 0.60], [8, 7, 8, 7, 8, 8, 8]),  # up, and never above eps
        ([0.50] * 10, [8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]),
        ([0.49], [8, 7]),  # an attack may be lucky
    ],
)
def test_decisions_by_hand(masked, expected):
    assert levels([(0.50, share) for share in masked]) == expected


def test_training_moves_both_and_decides_nothing():
    rising = [(0.2, 0.23), (0.4, 0.43), (0.7, 0.73)]
    assert levels(rising) == levels(rising[::-1]) == [8, 7, 6, 5]


def test_a_larger_split_allows_less():
    assert levels([(0.50, 0.53)], images=100)[-1] == 7
    assert levels([(0.50, 0.53)], images=10_000)[-1] == 8
    assert levels([(0.50, 0.50), (0.50, 0.53)], images=10_000) == [8, 7, 8]


def test_no_images_are_no_evidence():
    with pytest.raises(ValueError, match="validation images"):
        eps_low_after([(0.5, 0.5)], images=0, eps=0.1)


def test_the_phase_draws_its_rule_from_the_validations(tiny):
    burn_in, main = build.build_phases(tiny(mask={"eps_low": "auto"}), 100)
    assert burn_in.adapt is None
    following = main.adapt([[0.9, 0.5, 0.5], [0.9, 0.5, 0.5]])
    assert following.chosen == {"eps_low": 0.1 * 6 / 8}
    rule = following.objective.perturb.keywords["rule"]
    assert rule.func is rules.draw_budget
    assert rule.keywords["eps_low"] == 0.1 * 6 / 8
    assert following.objective.perturb.keywords["budget"] == Linf(0.1)
    assert following.masked.keywords == rule.keywords
    assert main.adapt([]).objective.perturb.keywords["rule"].keywords["eps_low"] == 0.1
    assert build.build_phases(tiny(), 100)[1].adapt is None


SEARCH = {
    "mask": {"eps_low": "auto", "burn_in": 0.2},
    "data": {"limit": 48},
    "train": {"epochs": 5, "batch_size": 24},
    "optimizer": {"lr": 1e-3},
}


def lows(run):
    return [r.details.get("eps_low") for r in run.records() if r.kind == "epoch"]


def test_a_run_that_stops_anywhere_searches_the_same_and_ends_with_the_same_bits(tiny):
    whole = jobs.train(tiny(name="whole", **SEARCH)).run
    steps = lows(whole)
    assert steps[:2] == [None, 0.1]
    assert min(steps[1:]) < 0.1
    masked = [r.details.get("validation_masked") for r in whole.records() if r.kind == "epoch"]
    robust = [r.details["validation_robust"] for r in whole.records() if r.kind == "epoch"]
    assert masked[0] is None
    assert masked[1] == robust[1]  # at eps the two attacks are one
    assert all(weak >= full for weak, full in zip(masked[1:], robust[1:], strict=True))
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
    short = {"epochs": 2}  # one of burn-in, and the first of the search
    at = jobs.train(tiny(name="at", train={**short, "method": "at"})).run
    auto = jobs.train(tiny(name="auto", train=short, mask={"eps_low": "auto"})).run
    (one, _), (other, _) = (checkpoint.read(run.checkpoint("last")) for run in (at, auto))
    assert lows(auto) == [None, 0.1]
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
    """At a learning rate so small that rounding changes no answer."""
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
    assert min(lows(one)[1:]) < 0.1
