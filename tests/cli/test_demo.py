"""The demo, on a few images: three runs, one page, and nothing done twice."""

from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from counterpart import jobs
from counterpart.cli import demo, main
from counterpart.jobs import Trained
from counterpart.records import read
from counterpart.rundir import RunDir

TINY = [
    "--train.epochs", "1", "--data.limit", "64", "--model.width", "4", "--train.validation-n", "20",
    "--train.validation-steps", "1", "--attack.steps", "1", "--evaluate.n", "20",
    "--evaluate.attacks", "[{steps: 1}]", "--device", "cpu",
]  # fmt: skip


@pytest.mark.slow
def test_it_trains_judges_and_reports_and_reuses_what_is_finished(tmp_path, capsys):
    words = ["demo", *TINY, "--runs", str(tmp_path / "my runs")]
    assert main(words) == 0
    address = capsys.readouterr().out.splitlines()[-1]
    page = Path(unquote(urlparse(address).path))
    assert address.startswith("file:///")
    assert page.is_relative_to(tmp_path)
    text = page.read_text()
    runs = [tmp_path / "my runs" / recipe.replace("/", "-") for recipe in demo.RECIPES]
    for run in runs:
        assert run.name in text
        assert any(r.name.startswith("accuracy/") for r in read(run / "records.jsonl"))

    before = [(run / "records.jsonl").read_text() for run in runs]
    assert main(words) == 0
    assert [(run / "records.jsonl").read_text() for run in runs] == before


def asked(words, monkeypatch, tmp_path):
    """What the demo asks of ``jobs``."""
    calls = []

    def train_seeds(config, seeds):
        calls.append((config, tuple(seeds)))
        return [Trained(RunDir(tmp_path), True)]

    monkeypatch.setattr(jobs, "train_seeds", train_seeds)
    monkeypatch.setattr(jobs, "train", lambda config: train_seeds(config, ())[0])
    monkeypatch.setattr(jobs, "evaluate", lambda target, changes: calls.append((target, changes)))
    monkeypatch.setattr("counterpart.report.write_report", lambda runs: tmp_path / "index.html")
    assert main(words) == 0
    return calls


def test_the_quick_demo(monkeypatch, tmp_path):
    calls = asked(["demo"], monkeypatch, tmp_path)
    trained, judged = calls[::2], calls[1::2]
    assert [seeds for _, seeds in trained] == [()] * 3
    assert [str(config.runs / config.name) for config, _ in trained] == [target for target, _ in judged]
    assert judged[0][0] == "runs/demo/digits-at"
    assert [a["attack"] for a in judged[0][1]["evaluate"]["attacks"]] == ["pgd", "autoattack"]
    methods = [(config.train.method, config.mask.control) for config, _ in trained]
    assert methods == [("at", "none"), ("part", "none"), ("part", "uniform")]


def test_the_full_demo_has_seeds_and_attacks_harder(monkeypatch, tmp_path):
    calls = asked(["demo", "--full"], monkeypatch, tmp_path)
    assert [seeds for _, seeds in calls[::2]] == [(0, 1, 2)] * 3
    assert calls[1][0] == "runs/demo-full/digits-at"
    assert [a["attack"] for a in calls[1][1]["evaluate"]["attacks"]] == ["pgd", "autoattack"]
