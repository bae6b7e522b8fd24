"""Estimates from a sample of survivors: called so on the page, and never mixed with what was counted."""

import pytest

from counterpart.report import write_report
from counterpart.report.grouping import group
from counterpart.report.page import _standing
from counterpart.report.runs import read_runs
from counterpart.statistics import wilson

SAMPLED = {"count": 50, "dear": ["fab-t", "square"]}


def rows_of(*runs):
    return group(read_runs([run.path for run in runs]))


def estimated(records, value, n=1000, key="k2", method="AT", **details):
    """The records of an evaluation whose worst case is an estimate: 50 of 500 survivors were tried."""
    clean, worst = records.metrics(
        method, {"clean": 0.8, "worst case": value}, n=n, key=key, sampled=SAMPLED, **details
    )
    counts = {"survivors": 500, "tried": 50, "fell": 2, "of_these_images": [value - 0.04, value + 0.02]}
    worst.details["estimate"] = counts
    del worst.details["per_class"]
    return [clean, worst]


def test_the_page_says_estimate_and_both_intervals(make_run, records):
    run = make_run("at")
    run.add(estimated(records, 0.48))
    text = write_report([run.path]).read_text()
    assert "“AT”: 50 of 500 survivors, drawn at random, met fab-t and square. Accuracies that rest on" in text
    assert "<small>estimate; of these images 44.00–50.00</small>" in text
    assert text.count("<small>estimate") == 1  # clean is exact
    assert "not estimated" in text  # of each class
    assert "fab-t and square on at most 50 survivors" in text
    assert "about 48.0\N{NO-BREAK SPACE}% of 1,000 images survived every attack tried" in text.replace(
        "&nbsp;", "\N{NO-BREAK SPACE}"
    )


def test_a_full_evaluation_of_as_many_images_is_shown_first(make_run, records):
    run = make_run("at")
    run.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.47}, key="full"))
    run.add(estimated(records, 0.48, key="later"))
    (row,) = rows_of(run)
    assert row.accuracy("worst case").value == 0.47
    text = write_report([run.path]).read_text()
    assert "worst case (estimate) 48.00" in text  # among other evaluations of the run
    assert "clean (estimate)" not in text
    run.add(estimated(records, 0.46, n=2000, key="more"))
    (row,) = rows_of(run)
    assert row.accuracy("worst case").value == 0.46
    assert row.accuracy("worst case").estimated


def test_estimates_and_counts_are_no_seeds_of_each_other(make_run, records):
    first, second, third = (make_run(f"at/seed-{seed}", "at", seed) for seed in (0, 1, 2))
    first.add(records.metrics("AT", {"clean": 0.8, "worst case": 0.47}))
    second.add(estimated(records, 0.48))
    third.add(estimated(records, 0.46))
    counted, sampled = rows_of(first, second, third)
    assert [len(row.runs) for row in (counted, sampled)] == [1, 2]
    accuracy = sampled.accuracy("worst case")
    assert (accuracy.estimated, accuracy.of_these_images) == (True, None)
    assert accuracy.value == pytest.approx(0.47)
    assert counted.setting != sampled.setting
    assert "some survivors of each run, drawn at random, met" in write_report([first.path.parent]).read_text()


def test_folds_of_estimates_keep_their_own_intervals(make_run, records):
    runs = []
    for number, value in enumerate((0.5, 0.4), 1):
        runs.append(make_run(f"fold-{number}", "at", 0, data={"name": "parts", "fold": f"{number}/2"}))
        runs[-1].add(estimated(records, value, fold=f"{number}/2"))
    (row,) = rows_of(*runs)
    worst = row.accuracy("worst case")
    half = 1.96 * 0.24**0.5 / 1000**0.5 / 2**0.5
    assert worst.value == pytest.approx(0.45)
    assert worst.high - worst.value == pytest.approx(half, rel=0.03)
    assert (row.accuracy("clean").low, row.accuracy("clean").high) == wilson(1600, 2000)


def test_untried_images_count_neither_as_robust_nor_as_fallen(make_run, records):
    run = make_run("at")
    run.add(estimated(records, 0.48))
    (row,) = rows_of(run)
    assert _standing(row) is None  # there is no table
    folder = run.path / "evaluations" / "k2"
    folder.mkdir(parents=True)
    table = folder / "images.csv"
    for fate, standing in (("", {"0": 1.0, "1": 0.0}), ("untried", None)):
        table.write_text(f"index,first_fooled_by\n0,{fate}\n1,PGD-20\n")
        run.add([run.artifact(table, "images", "Per-image results.")])
        (row,) = rows_of(run)
        assert _standing(row) == standing
