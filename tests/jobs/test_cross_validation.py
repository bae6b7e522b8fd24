"""Runs of a cross-validation: what is trained on, judged, recorded and pooled, with data.fold K/N."""

import shutil

import numpy as np
import pytest
from PIL import Image

from counterpart import jobs
from counterpart.build import hash_config
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.jobs.targets import open_targets
from counterpart.report import write_report
from counterpart.report.grouping import group
from counterpart.report.page import _standing
from counterpart.report.runs import read_runs
from counterpart.rundir import RunDir

TINY = {
    "device": "cpu",
    "data": {"name": "folder", "padding": 0, "flip": False},
    "model": {"name": "small-cnn", "width": 4},
    "train": {"method": "clean", "epochs": 1, "batch_size": 8, "precision": "float32", "validation_steps": 1},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two crops of each of 11 photographs, of two classes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for photograph in range(11):
        for name in ("cat", "dog"):
            path = folder / "train" / name / f"{photograph}__{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """A run of each of three folds."""
    where = tmp_path_factory.mktemp("runs")
    made = []
    for number in (1, 2, 3):
        settings = {
            "name": f"fold-{number}",
            "runs": str(where),
            "data": {"root": str(root), "fold": f"{number}/3"},
        }
        made.append(jobs.train(resolve(TINY, settings)).run)
    return made


def judged(run, attacks=(), **data):
    (outcome,) = jobs.evaluate(str(run.path), {"data": data, "evaluate": {"attacks": list(attacks)}})
    return outcome


def test_each_fold_is_judged_on_its_own_photographs_and_the_record_says_which(runs):
    names = []
    for number, run in enumerate(runs, start=1):
        outcome = judged(run)
        names += outcome.case.images.names
        assert outcome.records[0].n == len(outcome.case.images)
        assert {record.details["fold"] for record in outcome.records} == {f"{number}/3"}
    assert len(names) == len(set(names)) == 22


def test_training_and_judging_say_how_photographs_are_told(runs, capsys):
    judged(runs[0])
    said = " ".join(capsys.readouterr().err.split())
    assert "Note: data.fold 1/3: 22 images of 11 photographs, which are told by names" in said


def test_a_model_that_is_judged_on_another_fold_than_its_own_is_told_so(runs, capsys):
    own, other = judged(runs[0]).case, judged(runs[0], fold="2/3").case
    assert own.key != other.key
    assert "is not what the model was trained on" in capsys.readouterr().err
    assert own.target.doubts == ()
    (doubt,) = other.target.doubts
    assert (
        "trained with data.fold 1/3 and is judged with data.fold 2/3: it has learned from images"
        in doubt.text
    )


def test_another_model_is_judged_on_the_fold_of_a_run(runs, tmp_path):
    weights = str(shutil.copy(runs[0].checkpoint("best"), tmp_path / "weights.safetensors"))
    given = {"split_of": str(runs[1].path)}
    (target,) = open_targets(weights, {"data": given})
    assert target.images.names == judged(runs[1]).case.images.names
    with pytest.raises(UserError, match=r"data\.split_of: the images"):
        list(open_targets(weights, {"data": {**given, "fold": "1/3"}}))


def test_folds_are_different_runs_and_a_run_without_is_as_before(root):
    hashes = {fold: hash_config(resolve(TINY, {"data": {"fold": fold}})) for fold in (None, "1/3", "2/3")}
    assert len(set(hashes.values())) == 3
    assert hashes[None] == hash_config(resolve(TINY))
    assert resolve(TINY, {"data": {"fold": " 01/ 3"}}).data.fold == "1/3"


def test_a_fold_of_a_set_that_has_none_is_refused():
    with pytest.raises(
        UserError, match=r"data\.fold 1/5 has no effect with data\.name digits.*folder and parts"
    ):
        resolve({"data": {"name": "digits", "fold": "1/5"}})
    with pytest.raises(UserError, match="a fold is K/N"):
        resolve({"data": {"name": "folder", "fold": "6/5"}})


def test_a_run_goes_on_in_its_fold_alone(runs, root):
    settings = {
        "name": "fold-1",
        "runs": str(runs[0].path.parent),
        "data": {"root": str(root), "fold": "2/3"},
    }
    with pytest.raises(UserError, match=r"data\.fold"):
        jobs.train(resolve(TINY, settings))
    assert RunDir(runs[0].path).config()["data"]["fold"] == "1/3"


def test_the_report_adds_up_what_the_folds_counted(runs):
    for run in runs:
        judged(run, ["fgsm"])
    (row,) = group(read_runs([run.path for run in runs]))
    right, stand = (
        sum(round(evaluation.metrics[name].value * evaluation.n) for evaluation in row.shown)
        for name in ("clean", "worst case")
    )
    assert (row.n, row.folds, row.seed_count) == (22, "all 3 folds", 1)
    assert row.accuracy("clean").value == right / 22
    standing = _standing(row)  # the rows of all folds, each image once
    assert len(standing) == 22
    assert sum(standing.values()) == stand
    page = write_report([run.path for run in runs]).read_text(encoding="utf-8")
    assert "judged on 22 test images of folder" in " ".join(page.split())
