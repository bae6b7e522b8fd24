"""``counterpart evaluate``: short flags, suites by name, precisions and engines, on a small run."""

import json

import pytest
import torch

from counterpart.cli import main
from counterpart.config import EvaluateSettings
from counterpart.contracts import Attacked, NamedAttack
from counterpart.jobs.keeping import asks_for_autoattack
from counterpart.rundir import RunDir

CODE = """
import torch
from torch import nn

def small():
    torch.random.default_generator.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 10))
"""


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Evaluate a network of the user's: settings -> (records by name, settings.json, identity.json, result.json)."""
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "smallnets.py").write_text(CODE)

    def evaluate(*words):
        assert main(["evaluate", "smallnets:small", "--data.name", "digits", "--device", "cpu", *words]) == 0
        run = RunDir(tmp_path / "runs" / "smallnets-small")
        key = run.records()[-1].details["evaluation"]
        made = {
            r.name: r
            for r in run.records()
            if r.details.get("evaluation") == key and r.name.startswith("accuracy/")
        }
        files = [
            json.loads((run.path / "evaluations" / key / f"{n}.json").read_text())
            for n in ("identity", "result")
        ]
        return made, *files

    yield evaluate
    sys.modules.pop("smallnets", None)


def test_short_flags(judged):
    made, identity, result = judged("--attacks", "pgd,mm3", "--n", "20", "--seed", "3")
    assert list(made) == ["accuracy/clean", "accuracy/PGD-20", "accuracy/MM3-20", "accuracy/worst case"]
    assert (identity["n"], identity["seed"], identity["eps"]) == (20, 3, 8 / 255)
    assert result["eps"] == "8/255"
    assert result["autoattack_acc"] is None  # only AutoAttack is called so
    assert result["clean_acc"] == f"{100 * made['accuracy/clean'].value:.2f}"


def test_the_finish_of_bf16_is_float32_and_records_name_it(judged):
    made, identity, _ = judged(
        "--attacks", "[{steps: 1}]", "--n", "20", "--precision", "bf16", "--eps", "2/255"
    )
    assert list(made) == [
        "accuracy/clean", "accuracy/PGD-1", "accuracy/float32 apgd-ce", "accuracy/float32 apgd-t",
        "accuracy/worst case",
    ]  # fmt: skip
    assert [name for name, _ in identity["attacks"]][1:] == [
        "float32 apgd-ce", "float32 apgd-t target 1", "float32 apgd-t target 2", "float32 apgd-t target 3"
    ]  # fmt: skip
    assert {r.details["precision"] for r in made.values()} == {"bf16"}
    assert identity["precision"] == "bf16"
    assert main(["verify", "runs/smallnets-small"]) == 0
    none, *_ = judged("--attacks", "none", "--n", "20", "--precision", "bf16")
    assert list(none) == ["accuracy/clean", "accuracy/worst case"]
    assert none["accuracy/worst case"].value == none["accuracy/clean"].value
    exact, *_ = judged("--attacks", "[{steps: 1}]", "--n", "20", "--eps", "2/255")
    assert exact["accuracy/clean"].details["precision"] == "float32"


def test_the_search_of_bf16_is_in_bf16_and_its_finish_is_not(judged, monkeypatch):
    from counterpart.models.inference import InferenceView

    made = []
    original = InferenceView.__init__

    def watching(self, model, **options):
        made.append(options.get("precision", "float32"))
        original(self, model, **options)

    monkeypatch.setattr(InferenceView, "__init__", watching)
    judged("--attacks", "[{steps: 1}]", "--n", "5", "--precision", "bf16", "--eps", "1/255")
    assert sorted(made) == ["bf16", "float32", "float32"]  # the last one is what its form is decided on


def test_radii_with_commas_are_a_curve(judged, capsys):
    made, identity, result = judged("--attacks", "pgd,fmn", "--n", "20", "--eps", "1/255,2/255,4/255")
    assert identity["eps"] == [1 / 255, 2 / 255, 4 / 255]
    assert "at 1/255" in capsys.readouterr().out
    worst = [made[f"accuracy/worst case{at}"] for at in (" at 1/255", " at 2/255", "")]
    assert [record.details["eps"] for record in worst] == identity["eps"]
    assert result["eps"] == "4/255"
    assert [point["eps"] for point in result["counterpart"]["curve"]] == identity["eps"]
    assert main(["verify", "runs/smallnets-small"]) == 0


def test_the_finish_of_bf16_runs_at_each_radius(judged):
    made, *_ = judged("--attacks", "[{steps: 1}]", "--n", "10", "--precision", "bf16", "--eps", "1/255,2/255")
    assert {"accuracy/float32 apgd-ce at 1/255", "accuracy/float32 apgd-ce"} <= made.keys()


def test_the_official_package_runs_at_each_radius(judged):
    pytest.importorskip("pyautoattack")
    made, *_ = judged(
        "--attacks", "autoattack-rand", "--n", "4", "--engine", "official", "--eps", "1/255,2/255"
    )
    assert {"accuracy/official apgd-ce at 1/255", "accuracy/official apgd-ce"} <= made.keys()
    assert main(["verify", "runs/smallnets-small"]) == 0


def test_the_official_engine_is_named(judged):
    pytest.importorskip("pyautoattack")
    made, identity, _ = judged("--attacks", "autoattack-rand", "--n", "4", "--engine", "official")
    assert [name for name, _ in identity["attacks"]] == ["official apgd-ce", "official apgd-dlr"]
    assert {r.details["engine"] for r in made.values()} == {"official"}
    assert main(["verify", "runs/smallnets-small"]) == 0


def test_autoattack_gets_robustbench_s_field(judged):
    """A radius under which every image falls at once, so that Square has nothing to ask."""
    made, _, result = judged("--attacks", "autoattack", "--eps", "0.5")
    assert list(made) == [
        "accuracy/clean", "accuracy/apgd-ce", "accuracy/apgd-t", "accuracy/fab-t", "accuracy/square",
        "accuracy/worst case",
    ]  # fmt: skip
    assert result["autoattack_acc"] == f"{100 * made['accuracy/worst case'].value:.2f}"
    assert result["dataset"] == "digits"


@pytest.mark.parametrize(
    ("words", "filled"),
    [
        (["--attacks", "[{attack: autoattack, version: standard}]"], True),  # as it is by default
        (["--attacks", "autoattack", "--batch-size", "100", "--save-images", "false", "--norm", "l2"], True),
        (["--attacks", "autoattack", "--n", "400"], True),  # all images
        (["--attacks", "autoattack", "--n", "399"], False),
        (["--attacks", "pgd,autoattack"], False),
        (["--attacks", "autoattack,square"], False),
        (["--attacks", "autoattack-plus"], False),
        (["--attacks", "[{attack: autoattack, version: rand}]"], False),
        (["--attacks", "apgd,fab,square"], False),
        (["--attacks", "none"], False),
        (["--attacks", "autoattack", "--precision", "bf16"], False),
        (["--attacks", "autoattack", "--individual"], False),
        (["--attacks", "autoattack", "--on", "fog:1"], False),
        (["--attacks", "autoattack", "--eps", "0.4,0.5"], False),
    ],
)
def test_robustbench_s_field_is_of_standard_autoattack_alone(judged, monkeypatch, words, filled):
    """What runs is left out, which decides nothing here."""
    from counterpart.build import attacks
    from counterpart.jobs import case

    def nothing(model, images, labels, *, budget, keys, start=None, **options):
        zeros = torch.zeros(len(images), dtype=torch.int64)
        return Attacked(images, zeros, zeros)

    monkeypatch.setattr(
        attacks, "_build_suite", lambda *_: [NamedAttack("standing in", nothing, "standing in")]
    )
    monkeypatch.setattr(
        attacks, "_build_attack", lambda asked, *_, **__: NamedAttack(asked.attack, nothing, asked.attack)
    )
    monkeypatch.setattr(case, "finish", lambda *_: [])
    *_, result = judged(*(["--eps", "0.5"] if "--eps" not in words else []), *words)
    assert (result["autoattack_acc"] is not None) == filled
    assert result["clean_acc"] is not None


def test_a_mask_aware_attack_is_not_standard():
    wanted = EvaluateSettings(attacks="autoattack")
    assert asks_for_autoattack(wanted)
    assert not asks_for_autoattack(wanted.model_copy(update={"eps_low": 0.01}))
    assert not asks_for_autoattack(EvaluateSettings())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attacks", "pgd,xyzzy"], "Known: apgd, autoattack, autoattack-few-classes"),
        (["--attacks", "autoattak"], "Did you mean 'autoattack'?"),
        (["--eps", "8"], "Did you mean 8/255?"),
        (["--precision", "fp8"], "'float32', 'bf16' or 'tf32'"),
        (
            ["--engine", "official", "--attacks", "pgd"],
            "evaluate.engine official runs autoattack only, not pgd",
        ),
        (
            ["--engine", "official", "--attacks", "autoattack", "--precision", "bf16"],
            "searches in float32 only",
        ),
        (["--n", "0"], "greater than or equal to 1"),
        (["--nn", "3"], "--nn"),
        (["--attack.eps", "0.1"], "Did you mean --evaluate.eps?"),
        (["--n"], "--n needs a value"),
    ],
)
def test_mistakes_are_one_line(judged, capsys, words, message):
    assert main(["evaluate", "smallnets:small", "--data.name", "digits", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_bf16_of_one_image_and_of_all_is_deterministic(judged):
    words = ["--attacks", "[{steps: 3}]", "--n", "30", "--precision", "bf16", "--individual"]
    first, *_ = judged(*words)
    again, *_ = judged(*words)
    assert [r.value for r in first.values()] == [r.value for r in again.values()]
