"""Model cards where numbers are missing: what was not measured is not printed as nothing right."""

from dataclasses import replace

import pytest

import counterpart as cp
from counterpart.cli import main
from counterpart.jobs import model_card, sharing
from counterpart.jobs.stored_evaluations import open_evaluation
from counterpart.records import Record

ATTACKS = "[{steps: 1, step_size: 0.02}, {attack: square, queries: 60}]"


@pytest.fixture
def evaluation(run):
    assert main(["evaluate", str(run.path), "--attacks", "fgsm", "--n", "20"]) == 0
    return open_evaluation(run, run.evaluation_folders[0], {})


def test_an_accuracy_that_nobody_knows_is_no_zero(evaluation, monkeypatch):
    clean = Record("metric", "accuracy/clean", 0.5, 20, (0.1, 0.9))
    unknown = replace(clean, name="accuracy/worst case", value=None, interval=None)
    monkeypatch.setattr(model_card, "accuracies_of", lambda evaluation: [clean, unknown])
    assert "| worst case | none | none | 20 |" in model_card.lines_of(evaluation)
    said = model_card._verdict(evaluation.target, [evaluation])
    assert said == "A classifier of images into 10 classes. Of 20 test images of digits it gets 50.0% right."
    monkeypatch.setattr(model_card, "accuracies_of", lambda evaluation: [])
    assert "nothing is known of its accuracy" in model_card._verdict(evaluation.target, [evaluation])


def test_an_estimate_whose_records_are_gone_is_left_out(run, tmp_path):
    words = ["--device", "cpu", "--attacks", ATTACKS, "--n", "40", "--eps", "0.08", "--sampled", "8"]
    assert main(["evaluate", str(run.path), *words]) == 0
    [name] = [folder.name for folder in run.evaluation_folders]
    target = sharing.open_single_target(str(run.path), {})
    evaluations, left_out = sharing._verified(target, {})
    assert ([evaluation.folder.name for evaluation in evaluations], left_out) == ([name], [])
    run.records_file.unlink()
    shared = cp.share(run.path, tmp_path / "shared")
    assert shared.evaluations == []
    [sentence] = shared.left_out
    assert sentence.startswith(f"the evaluation {name} is left out: its records are missing")
    assert "It was not evaluated" in (tmp_path / "shared" / "README.md").read_text()
