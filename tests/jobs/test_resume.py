"""Killed evaluations go on, and many processes find what one finds: the units on disk are the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import counterpart
from counterpart import jobs
from counterpart.cli import main
from counterpart.rundir import RunDir, read_json, sweep

SOURCE = str(Path(counterpart.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
ATTACKS = "[{steps: 3}, {attack: minimum-margin, targets: 2, steps: 3}, {attack: square, queries: 30}]"
# torchrun would take a bare --n for one of its own options.
WORDS = [
    "--attacks",
    ATTACKS,
    "--evaluate.n",
    "60",
    "--eps",
    "0.03",
    "--chunk-size",
    "10",
    "--batch-size",
    "7",
]


# Square, the dear one of these attacks, in rounds on a sample of the survivors.
SAMPLE = ["--sampled", "auto", "--sampled-width", "0.05", "--sampled-looks", "2"]
every_way = pytest.mark.parametrize("more", [(), SAMPLE], ids=["all", "sampled"])


def words_of(run, more=()):
    return ["evaluate", str(run.path), "--device", "cpu", *WORDS, *more]


def complete(program):
    done = subprocess.run(
        [sys.executable, *program], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ledger_of(run):
    [folder] = (run.path / "evaluations").iterdir()
    return folder


def content(run):
    """Everything that a ledger says, but for how long it took."""
    folder = ledger_of(run)
    units = {file.name: read_json(file) for file in sorted((folder / "units").iterdir())}
    for unit in units.values():
        assert unit.pop("seconds") >= 0
    images = {file.name: file.read_bytes() for file in sorted((folder / "images").iterdir())}
    return {
        "units": units,
        "images": images,
        "table": (folder / "images.csv").read_bytes(),
        "key": folder.name,
    }


def values(run):
    return {r.name: (r.value, r.n, r.interval) for r in run.records() if r.name.startswith("accuracy/")}


@pytest.fixture
def copies(master, tmp_path):
    """Two copies of one run."""
    made = []
    for name in ("whole", "other"):
        shutil.copytree(master.path, tmp_path / name)
        made.append(RunDir(tmp_path / name))
    return made


# A process of its own for every start, forked from one that has imported torch already.
KILLER = """
import json, os, signal, sys, time
from pathlib import Path

from counterpart import cli, jobs

words, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
units = lambda: len(list(folder.rglob("units/*.json")))
for _ in range(3):
    before, child = units(), os.fork()
    if child == 0:
        os._exit(cli.main(words))
    while units() < before + 5 and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(units(), child)
"""


@pytest.mark.slow
@every_way
def test_an_evaluation_that_is_killed_again_and_again_ends_with_the_same_ledger(copies, more):
    whole, killed = copies
    assert main(words_of(whole, more)) == 0
    wanted = content(whole)
    said = complete(["-c", KILLER, json.dumps(words_of(killed, more)), str(killed.path)])
    starts = [tuple(map(int, line.split())) for line in said.splitlines() if line.replace(" ", "").isdigit()]
    units = [count for count, _ in starts]
    assert len(units) == 3
    assert units == sorted(set(units))  # each start came farther
    assert units[-1] < len(wanted["units"])
    torn = ledger_of(killed) / "units" / f".clean-00000.json.{starts[-1][1]}"
    torn.write_bytes(b"half")  # killed in a write
    assert main(words_of(killed, more)) == 0
    assert content(killed) == wanted
    assert values(killed) == values(whole)
    assert not list(ledger_of(killed).rglob(".*"))
    [verified] = jobs.verify_run(killed.path, {})
    assert verified.mismatches == []
    assert verified.successes > 0


@pytest.mark.slow
@every_way
def test_two_processes_write_the_ledger_of_one_and_one_finishes_theirs(copies, more):
    one, two = copies
    assert main(words_of(one, more)) == 0
    wanted = content(one)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "counterpart"]
    complete([*torchrun, *words_of(two, more)])
    assert content(two) == wanted
    assert values(two) == values(one)
    for file in sorted((ledger_of(two) / "units").iterdir())[1::2]:
        file.unlink()
    for file in (ledger_of(two) / "images").iterdir():
        file.unlink()
    assert main(words_of(two, more)) == 0
    assert content(two) == wanted


NOISY = '''
import numpy
import torch
from sklearn.datasets import load_digits
from torch import nn


class NearestMean(nn.Module):
    """Answers with the digit whose mean is nearest, under noise that every pass draws anew."""

    def __init__(self):
        super().__init__()
        digits = load_digits()
        wide = numpy.kron(digits.images / 16, numpy.ones((2, 2))).reshape(-1, 256)
        means = torch.tensor(numpy.stack([wide[digits.target == k].mean(0) for k in range(10)])).float()
        self.means = nn.Parameter(means)

    def forward(self, images):
        logits = images.flatten(1) @ self.means.T - self.means.square().sum(dim=1) / 2
        return logits + 3 * torch.randn_like(logits)
'''


@pytest.mark.slow
def test_two_processes_draw_the_random_answers_of_one(tmp_path, monkeypatch):
    (tmp_path / "noisy_digits.py").write_text(NOISY)
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", f"{SOURCE}{os.pathsep}{tmp_path}")
    words = [
        "evaluate", "noisy_digits:NearestMean", "--data.name", "digits", "--device", "cpu", "--evaluate.n", "40",
        "--eps", "0.03", "--evaluate.draws", "6", "--evaluate.votes", "3", "--evaluate.eot", "2", "--chunk-size", "10",
        "--batch-size", "7", "--attacks", "[{steps: 2}]",
    ]  # fmt: skip
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    runs = []
    for name, start in (("one", []), ("two", torchrun)):
        complete([*start, "-m", "counterpart", *words, "--runs", str(tmp_path / name)])
        [folder] = (tmp_path / name).iterdir()
        runs.append(RunDir(folder))
    assert content(runs[1]) == content(runs[0])
    assert values(runs[1]) == values(runs[0])
    shares = {value for value, _, _ in values(runs[0]).values()}
    assert all(0.1 < share < 0.95 for share in shares)  # answers do differ between draws


def test_what_lives_is_not_swept(tmp_path):
    mine, dead = tmp_path / f".unit.json.{os.getpid()}", tmp_path / ".unit.json.4194305"
    for file in (mine, dead):
        file.write_text("half")
    sweep(tmp_path)
    assert mine.exists()
    assert not dead.exists()


def test_batch_size_chunks_threads_and_the_size_of_images_belong_to_the_identity(run):
    settings = {"n": 20, "eps": 0.02, "attacks": [{"steps": 1}]}
    for changes, data in (({}, {}), ({"batch_size": 9}, {}), ({"chunk_size": 9}, {}), ({}, {"size": 24})):
        jobs.evaluate(str(run.path), {"evaluate": {**settings, **changes}, "data": data, "device": "cpu"})
    folders = list((run.path / "evaluations").iterdir())
    identities = [json.loads((folder / "identity.json").read_text()) for folder in folders]
    assert len(folders) == 4
    assert {one["threads"] for one in identities} == {1}
    assert len({one["model"] for one in identities}) == 1
