"""Columns that judge several weights of one training: what they are called, what is judged, and what is shown."""

import pytest

from counterpart import jobs, papers
from counterpart.cli import main
from counterpart.config import resolve
from counterpart.papers import weights
from counterpart.recipes import load
from counterpart.records import Record, write

PGD = [{"attack": "pgd", "steps": 2}]
ROWS = (
    papers.PaperRow("averaging", "at", changes={"train": {"ema": 0.5}}),
    papers.PaperRow("not averaging", "at"),
)


def experiment(**options):
    scales = {"smoke": papers.SCALES["smoke"]}
    given = {"weights": ("last", "best", "averaged"), "datasets": ("digits",), "scales": scales, **options}
    return papers.Experiment("pixel/weights", "Weights", ROWS, {"PGD-2": PGD}, **given)


def test_the_first_weights_have_the_plain_name_and_the_others_their_own():
    columns = {"PGD-2": PGD, "far": {"attacks": PGD, "eps": "16/255"}, "own": {"attacks": PGD, "weights": "last"},
               "seconds": len}  # fmt: skip
    shown = weights.by_weights(columns, ("best", "last"))
    assert shown == {
        "PGD-2": {"attacks": PGD, "weights": "best"},
        "PGD-2 last": {"attacks": PGD, "weights": "last"},
        "far": {"attacks": PGD, "eps": "16/255", "weights": "best"},
        "far last": {"attacks": PGD, "eps": "16/255", "weights": "last"},
        "own": {"attacks": PGD, "weights": "last"},
        "seconds": len,
    }
    assert weights.by_weights(columns, ()) == columns
    assert [weights.plain(column) for column in ("PGD-2 last", "AA published", "best")] == [
        "PGD-2", "AA published", "best",
    ]  # fmt: skip


def test_no_column_of_an_experiment_ends_in_a_word_for_weights():
    for known in papers.EXPERIMENTS.values():
        named = [*(known.columns or ()), *known.corruptions]
        assert [papers.plain(column) for column in named] == named


def test_the_weights_that_a_run_has_are_named_as_its_evaluation_names_them():
    averaging, without = (
        resolve(load("digits/at"), {"train": {"ema": ema}}, source="test") for ema in (0.5, None)
    )
    wanted = {name: {"attacks": [], "weights": name} for name in weights.WEIGHTS} | {"plain": PGD}
    judged, absent = weights.of_run(wanted, averaging)
    assert {name: what["weights"] for name, what in judged.items() if name != "plain"} == {
        "last": "unaveraged", "best": "best", "averaged": "last",
    }  # fmt: skip
    assert absent == {}
    judged, absent = weights.of_run(wanted, without)
    assert (judged["last"]["weights"], judged["best"]["weights"], judged["plain"]) == ("last", "best", PGD)
    assert {name: record.details for name, record in absent.items()} == {
        "averaged": {"reason": "not averaged"}
    }


def test_every_weight_of_one_training_is_judged_and_what_is_not_there_is_said(tmp_path, capsys, monkeypatch):
    shown, home = experiment(), tmp_path / "papers"
    papers.run(shown, "digits", "smoke", home, changes={"device": "cpu", "threads": 1})
    found = papers.measured(shown, "digits", "smoke", home)
    assert {column for row, column in found if row == "averaging"} == {*papers.columns(shown)}
    assert {column for row, column in found if row == "not averaging"} == {
        "natural", "natural best", "PGD-2", "PGD-2 best",
    }  # fmt: skip
    stored = {"": "unaveraged", " best": "best", " averaged": "last"}
    of_cells = {ending: found["averaging", f"natural{ending}"][0].details["weights"] for ending in stored}
    assert of_cells == stored
    assert set(papers.absent(shown, "digits", "smoke", home)) == {
        ("not averaging", "natural averaged"), ("not averaging", "PGD-2 averaged"),
    }  # fmt: skip
    for job in ("train", "evaluate"):  # would be called for whatever is missing
        monkeypatch.setattr(jobs, job, None)
    papers.run(shown, "digits", "smoke", home, changes={"device": "cpu", "threads": 1})
    monkeypatch.setitem(papers.EXPERIMENTS, shown.name, shown)
    assert main(["papers", "show", shown.name, "--scale", "smoke", "--runs", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.count("not averaged") == 2
    assert "what has no word is of the last ones" in told


def test_other_weights_stand_in_the_cell_once_they_are_measured(tmp_path, capsys, monkeypatch):
    shown = experiment()
    monkeypatch.setitem(papers.EXPERIMENTS, shown.name, shown)
    file = tmp_path / "papers" / "smoke" / "pixel-weights-digits.jsonl"
    details = {"model": "wrn-10-2", "scale": "smoke"}
    for column, value in (("PGD-2", 0.4), ("PGD-2 best", 0.5)):
        write(file, [Record("metric", f"averaging/{column}", value, 9, seed=0, details=details)])
        assert main(["papers", "show", shown.name, "--scale", "smoke", "--runs", str(tmp_path)]) == 0
        told = capsys.readouterr().out
        assert "40.00" in told
        assert ("best 50.00" in told) == (column == "PGD-2 best")
        assert "averaged 0" not in told


def test_margins_hold_for_every_weight():
    pair = ("averaging", "not averaging")
    shown = experiment(pairs=(pair,), margins={pair: {"PGD-2": 0.01}})
    found = {
        (row, column): [Record("metric", "", 0.5, 4, seed=0, details={"right": "1100"})]
        for row in pair
        for column in ("PGD-2", "PGD-2 best")
    }
    differences = {key: difference for key, (difference, _, _) in papers.differences(shown, found).items()}
    verdicts = papers.judge(shown, None, differences)
    assert {key[2]: verdict.margin for key, verdict in verdicts.items()} == {
        "PGD-2": 0.01,
        "PGD-2 best": 0.01,
    }


def test_the_minimum_margin_attack_is_mm_by_any_weights():
    assert [papers.shown_name(name) for name in ("MMA best", "MMA", "MMA-20")] == ["MM best", "MM", "MM-20"]


def test_the_primary_contrast_of_the_dose_is_declared_with_half_of_the_papers_gain():
    dose = papers.find("pixel/dose")
    assert dose.primary.key == ("4/255 own mask", "4/255 its mean", "natural of all")
    assert dose.primary.margin == pytest.approx((79.36 - 78.16) / 200)
    assert dose.primary.key[:2] in dose.pairs
    assert dose.margins["PART-T", "PART-T its mean"]["AA"] == pytest.approx((45.97 - 45.05) / 200)
    assert dose.weights == ("last", "best", "averaged")
    assert dose.evaluate["eps"] == "8/255"  # whatever a row was trained at
