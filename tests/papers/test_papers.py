"""Experiments as data, and one of them run at smoke scale."""

import pytest

from counterpart import papers
from counterpart.cli import main
from counterpart.data.corruptions import CORRUPTIONS
from counterpart.errors import UserError
from counterpart.evaluation import corruption
from counterpart.evaluation.corruption import Count
from counterpart.papers import experiments
from counterpart.records import Record


def test_every_experiment_is_sound():
    for name, one in papers.EXPERIMENTS.items():
        assert name == one.name
        assert len({row.name for row in one.rows}) == len(one.rows)
        assert {name for pair in one.pairs for name in pair} <= {row.name for row in one.rows}
        for row in one.rows:
            for dataset, values in row.published.items():
                assert dataset in one.datasets
                assert set(values) <= set(papers.columns(one))
                assert all(0 < value < 100 for value in values.values())


def test_published_numbers_of_table_1():
    """Spot checks against the paper: the least and the largest numbers of each data set."""
    rows = {row.name: row.published for row in papers.find("pixel/table-1").rows}
    assert rows["AT"]["cifar10"] == {"natural": 82.58, "PGD-20": 43.69, "MMA": 41.80, "AA": 41.63}
    assert rows["PART-M s=10"]["tiny-imagenet"]["AA"] == 13.37
    assert rows["PART s=10"]["svhn"]["natural"] == 93.75


@pytest.mark.parametrize("dataset", ["cifar10", "svhn", "tiny-imagenet"])
def test_every_row_resolves_at_every_scale(dataset, tmp_path):
    for one in papers.EXPERIMENTS.values():
        for row in one.rows if dataset in one.datasets else ():
            names = {
                experiments.configuration(row, dataset, scale, tmp_path, 0, {}).name
                for scale in papers.SCALES
            }
            assert len(names) == 1


def test_rows_that_differ_have_run_folders_of_their_own(tmp_path):
    seen = {}
    for one in papers.EXPERIMENTS.values():
        for row in one.rows:
            config = experiments.configuration(row, "cifar10", "small", tmp_path, 0, {})
            seen.setdefault(config.name, config)
            assert seen[config.name] == config


@pytest.mark.slow
def test_corruptions_are_columns_and_what_lacks_its_textures_is_missing(tmp_path, capsys, monkeypatch):
    experiment = papers.find("pixel/table-4")
    assert set(experiment.corruptions.values()) == set(CORRUPTIONS)
    words = ["papers", "run", "pixel/table-4", "--dataset", "digits", "--rows", "AT", "--scale", "smoke",
             "--runs", str(tmp_path), "--device", "cpu"]  # fmt: skip
    asked = []

    def quick(model, images, variants, **_):
        asked.extend(variants)
        return {variant: Count(len(images) // 2, len(images), 0.0, "") for variant in variants}

    monkeypatch.setattr(corruption, "count", quick)
    assert main(words) == 0
    found = papers.measured(experiment, "digits", "smoke", tmp_path / "papers")
    there = [column for column in papers.columns(experiment) if column not in ("Frost", "Saturate")]
    assert set(found) == {("AT", column) for column in there}  # digits have no colour to saturate
    assert {severity for _, severity in asked} == {0, 1}
    assert found["AT", "Fog"][0].value == 0.5
    assert found["AT", "Fog"][0].details["published"]
    told = capsys.readouterr()
    assert "severity 1" in told.out
    assert "Left out: frost" in told.err


@pytest.mark.slow
def test_two_rows_at_smoke_scale_and_no_work_twice(tmp_path, capsys, monkeypatch):
    words = ["papers", "run", "pixel/table-1", "--dataset", "digits", "--rows", "AT,PART",
             "--scale", "smoke", "--runs", str(tmp_path), "--device", "cpu"]  # fmt: skip
    assert main(words) == 0
    experiment = papers.find("pixel/table-1")
    found = papers.measured(experiment, "digits", "smoke", tmp_path / "papers")
    assert set(found) == {(row, column) for row in ("AT", "PART") for column in papers.columns(experiment)}
    assert all(records[0].n == 20 and len(records) == 1 for records in found.values())
    for row in ("AT", "PART"):
        attacked = [found[row, column][0].value for column in experiment.columns]
        assert max(attacked) <= found[row, "natural"][0].value
        for column in papers.columns(experiment):
            [record] = found[row, column]
            assert record.details["right"].count("1") == round(record.value * record.n)
    monkeypatch.setattr(experiments.jobs, "train", None)  # would be called for whatever is missing
    monkeypatch.setattr(experiments.jobs, "evaluate", None)
    capsys.readouterr()
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "MART" in shown
    assert "—" in shown
    assert "scale smoke" in shown


def test_differences_pair_the_seeds_and_images_that_both_rows_have():
    def record(row, seed, right):
        details = {"right": right}
        return Record("metric", f"{row}/natural", value=0.5, n=len(right), seed=seed, details=details)

    experiment = papers.Experiment("test", "", (), {"PGD-20": []}, pairs=(("PART", "AT"), ("PART", "MART")))
    found = {
        ("PART", "natural"): [
            record("PART", 0, "1110"),
            record("PART", 1, "1100"),
            record("PART", 2, "1111"),
        ],
        ("AT", "natural"): [record("AT", 1, "1000"), record("AT", 0, "1010"), record("AT", 2, "10")],
    }
    shown = papers.differences(experiment, found)
    assert set(shown) == {("PART", "AT", "natural")}  # no MART; no PGD-20; seed 2 saw other images
    difference, seeds, n = shown["PART", "AT", "natural"]
    assert (difference.mean, seeds, n) == (0.25, 2, 4)


def test_autoattack_sees_fewer_images_at_small_scale(tmp_path):
    row = papers.find("pixel/controls").rows[0]
    config = experiments.configuration(row, "cifar10", "small", tmp_path, 0, {})
    assert experiments._images(config, [{"attack": "pgd"}], "small") == 2000
    assert experiments._images(config, [{"attack": "autoattack"}], "small") == 200
    full = experiments.configuration(row, "cifar10", "full", tmp_path, 0, {})
    assert experiments._images(full, [{"attack": "autoattack"}], "full") is None


def test_rows_win_over_the_scale_except_in_smoke(tmp_path):
    row = papers.find("pixel/table-8").rows[-1]
    steps = {
        scale: experiments.configuration(row, "cifar10", scale, tmp_path, 0, {}).attack.steps
        for scale in papers.SCALES
    }
    assert steps == {"full": 60, "small": 60, "smoke": 2}


def test_what_is_unknown_gets_the_nearest_name(tmp_path):
    with pytest.raises(UserError, match="pixel/table-1"):
        papers.find("pixel/tabel-1")
    with pytest.raises(UserError, match="no row 'PARTT'"):
        papers.run(papers.find("pixel/table-1"), "digits", "smoke", tmp_path, rows=["PARTT"])
    with pytest.raises(UserError, match="no recipe 'trades'"):
        experiments.configuration(papers.find("pixel/table-1").rows[3], "folder", "smoke", tmp_path, 0, {})
