"""``counterpart verify`` and ``counterpart audit`` on a run: what they accept, and what they refuse."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from counterpart import jobs
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.rundir import read_json
from counterpart.training import checkpoint

WORDS = [
    "--attacks",
    "[{steps: 2}, {attack: square, queries: 20}]",
    "--n",
    "40",
    "--device",
    "cpu",
    "--eps",
    "0.2",
]


@pytest.fixture
def evaluated(run):
    assert main(["evaluate", str(run.path), *WORDS, "--chunk-size", "15"]) == 0
    return run


def ledger_of(run):
    [folder] = (run.path / "evaluations").iterdir()
    return folder


def refused(run, capsys, *words):
    capsys.readouterr()
    assert main(["verify", str(run.path), *words]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def reweighted(run):
    """Another model under the same name."""
    tensors, about = checkpoint.read(run.checkpoint("best"))
    tensors["backbone.fc.weight"] *= 1.0001
    save_file(tensors, run.checkpoint("best"), {"counterpart": json.dumps(about), "format": "pt"})


def test_a_run_verifies_wherever_it_lies(evaluated, tmp_path, capsys):
    shutil.move(evaluated.path, tmp_path / "elsewhere")
    evaluated = type(evaluated)(tmp_path / "elsewhere")
    assert main(["verify", str(evaluated.path), "--eight-bits"]) == 0
    said = capsys.readouterr().out
    record = evaluated.records()[-1]
    claims, fell = record.n, record.details["successes"]
    assert claims == 40 + fell
    assert fell > 5
    assert f"{claims} of {claims} claims hold, " in said
    assert f"of {fell} images still fool after rounding to 8 bits" in said
    assert (record.name, record.value) == ("verified", 1.0)
    assert record.details["evaluation"] == ledger_of(evaluated).name
    assert not (tmp_path / "runs" / "digits").exists()


def test_other_weights(evaluated, capsys):
    reweighted(evaluated)
    line = refused(evaluated, capsys)
    assert "cannot be verified, it belongs to something else (model: " in line


def test_other_data(evaluated, tmp_path, capsys):
    settings = ledger_of(evaluated) / "settings.json"
    asked = read_json(settings)
    asked["config"]["data"]["size"] = 8  # the same scans, other pixels
    settings.write_text(json.dumps(asked))
    line = refused(evaluated, capsys)
    assert "cannot be verified" in line or "does not hold" in line


def test_another_split(evaluated, capsys):
    settings = ledger_of(evaluated) / "settings.json"
    asked = read_json(settings)
    asked["config"]["evaluate"]["split"] = "validation"
    settings.write_text(json.dumps(asked))
    assert "belongs to something else (data: ['digits', 'test', " in refused(evaluated, capsys)


def test_a_tampered_image(evaluated, capsys):
    file = next((ledger_of(evaluated) / "images").iterdir())
    tensors = {k: v.clone() for k, v in load_file(file).items()}
    tensors["images"][0] = 1 - tensors["images"][0].round()
    save_file(tensors, file)
    line = refused(evaluated, capsys)
    assert "does not hold: 1 of its claims fail (" in line
    assert "of the budget is used" in line
    record = evaluated.records()[-1]
    assert record.value == (record.n - 1) / record.n


def test_an_image_that_is_no_number(evaluated, capsys):
    file = next((ledger_of(evaluated) / "images").iterdir())
    tensors = {k: v.clone() for k, v in load_file(file).items()}
    tensors["images"][0, 0, 0, 0] = torch.nan
    save_file(tensors, file)
    assert "cannot be verified: the model returns logits that are not finite" in refused(evaluated, capsys)


def test_a_ledger_of_another_attack_list(evaluated, capsys):
    """Somebody renames an evaluation to pass for a stronger one."""
    file = ledger_of(evaluated) / "identity.json"
    file.write_text(json.dumps(read_json(file)).replace("PGD-2", "PGD-1000"))
    assert "does not hold" in refused(evaluated, capsys)
    capsys.readouterr()
    assert main(["evaluate", str(evaluated.path), *WORDS, "--chunk-size", "15"]) == 2
    assert "is the ledger of another evaluation (attacks differ)" in capsys.readouterr().err


def test_every_evaluation_is_looked_at_before_one_fails(evaluated, capsys):
    main(["evaluate", str(evaluated.path), *WORDS, "--seed", "1"])
    main(["evaluate", str(evaluated.path), *WORDS, "--seed", "2", "--save-images", "false"])
    line = refused(evaluated, capsys)
    assert "was made with --save-images false: evaluate again" in line
    assert len([r for r in evaluated.records() if r.name == "verified"]) == 2


def test_a_run_that_was_never_evaluated(run, tmp_path, capsys):
    assert jobs.verify_run(run.path, {}) == []
    assert "holds no evaluation. Make one: counterpart evaluate" in capsys.readouterr().err
    with pytest.raises(UserError, match="does not exist"):
        jobs.verify_run(tmp_path / "nowhere", {})


def test_an_audit_of_a_run(run, capsys):
    words = ["audit", str(run.path), "--n", "20", "--eps", "0.1", "--device", "cpu"]
    words += ["--steps", "3", "--queries", "5", "--draws", "3", "--points", "20"]
    assert main(words) == 0
    said = capsys.readouterr().out
    for words_of_it in ("iterative attacks", "black-box", "unbounded", "random search", "radius"):
        assert words_of_it in said
    audits = [r for r in run.records() if r.name.startswith("audit/")]
    assert len(audits) == 13
    numbers = {r.name: r.details["numbers"] for r in audits}
    assert numbers["audit/unbounded attacks reach 100 %"].keys() == {"PGD, unbounded"}
    assert list(numbers["audit/success grows with the radius"]) == [
        "0.25 eps",
        "0.5 eps",
        "1 eps",
        "2 eps",
        "4 eps",
    ]
    assert len(list((run.path / "audits").glob("*/units"))) == 6
    before = {f: f.stat().st_mtime_ns for f in (run.path / "audits").rglob("*.json")}
    assert jobs.audit_named(
        str(run.path), {"evaluate": {"n": 20, "eps": 0.1}}, steps=3, queries=5, draws=3, points=20
    )
    assert {f: f.stat().st_mtime_ns for f in (run.path / "audits").rglob("*.json")} == before  # nothing again
    assert len([r for r in run.records() if r.name.startswith("audit/")]) == 13


def test_an_audit_refuses_what_it_does_not_use(run, capsys):
    assert main(["audit", str(run.path), "--attacks", "pgd"]) == 2
    assert main(["audit", str(run.path), "--steps", "0"]) == 2
    assert "'0' must be a whole number of at least 1" in capsys.readouterr().err
