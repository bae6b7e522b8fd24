"""Grouping over seeds, intervals over seeds, and the comparisons that a reader may make."""

import pytest

from counterpart.config import NOT_IDENTITY
from counterpart.report.runs import read_runs
from counterpart.report.tables import (
    NOT_METHOD,
    comparisons,
    differences,
    group,
    metric_names,
    paired,
    radius_text,
    seed_tests,
)


def rows_of(*runs):
    return group(read_runs([run.path for run in runs]))


def evaluated(make_run, records, name, value, seed=0, method="AT", n=1000, **details):
    run = make_run(name, "at", seed)
    run.add(records.metrics(method, {"clean": value, "worst case": value}, n=n, **details))
    return run


def test_seeds_group_whatever_their_names_but_not_other_settings(make_run, records):
    runs = [evaluated(make_run, records, name, 0.5, seed) for name, seed in (("x", 0), ("y", 1))]
    other = make_run("z", "at", seed=2, epochs=9)
    other.add(records.metrics("AT", {"clean": 0.5, "worst case": 0.5}))
    first, second = rows_of(*runs, other)
    assert [run.name for run in first.runs] == ["x", "y"]
    assert [run.name for run in second.runs] == ["z"]
    assert (first.label, second.label) == ("AT (x and others)", "AT (z)")


@pytest.mark.parametrize(
    "change", [{"eps": 0.1}, {"split": "validation"}, {"shape": [1, 8, 8]}, {"weights": "last"}, {"n": 500}]
)
def test_seeds_judged_differently_are_not_averaged(make_run, records, change):
    one = evaluated(make_run, records, "x", 0.5, 0)
    assert len(rows_of(one, evaluated(make_run, records, "y", 0.5, 1, **change))) == 2


def test_the_same_seed_twice_is_no_second_seed(make_run, records):
    assert len(rows_of(*(evaluated(make_run, records, name, 0.5, seed=0) for name in "xyz"))) == 3


def test_a_run_given_twice_counts_once(make_run, records):
    run = evaluated(make_run, records, "group/seed-0", 0.5)
    assert len(read_runs([run.path, run.path.parent, run.path])) == 1


def test_seeds_come_in_numerical_order(make_run, records):
    for seed in (10, 2):
        run = evaluated(make_run, records, f"group/seed-{seed}", 0.5, seed)
    (row,) = group(read_runs([run.path.parent]))
    assert (row.seeds, row.name) == ("2, 10", "group")


def test_a_seed_that_misses_a_metric_is_a_row_of_its_own(make_run, records):
    one, two = evaluated(make_run, records, "x", 0.5, 0), make_run("y", "at", 1)
    two.add(records.metrics("AT", {"clean": 0.5}))
    assert len(rows_of(one, two)) == 2


def test_a_seed_without_value_gives_no_mean(make_run, records):
    one, two = evaluated(make_run, records, "x", 0.5, 0), evaluated(make_run, records, "y", 0.5, 1)
    made = records.metrics("AT", {"clean": 0.5, "worst case": 0.5})
    two.add([type(made[1])(**{**vars(made[1]), "value": None, "interval": None})])
    (row,) = rows_of(one, two)
    assert row.accuracy("worst case") is None
    assert row.accuracy("clean") is not None


def test_overlap_and_no_overlap_in_words(make_run, records):
    runs = [
        evaluated(make_run, records, name, value, method=name)
        for name, value in (("low", 0.3), ("high", 0.5), ("near", 0.52))
    ]
    (text,) = comparisons(rows_of(*runs), "worst case")
    assert text == "95 % intervals overlap: “near” with “high”. Do not read these differences as gains."
    (text,) = comparisons(rows_of(*runs[:2]), "worst case")
    assert text == "no 95 % intervals overlap: “high” > “low”."


@pytest.mark.parametrize("change", [{"eps": 0.1}, {"shape": [1, 8, 8]}])
def test_rows_of_different_settings_are_never_compared(make_run, records, change):
    one = evaluated(make_run, records, "x", 0.5, method="A")
    other = evaluated(make_run, records, "y", 0.9, method="B", **change)
    assert comparisons(rows_of(one, other), "clean") == []


def seeds_of(make_run, records, name, values, **details):
    method = {"A": "at", "B": "part", "C": "clean"}[name]
    runs = [make_run(f"{name}-{seed}", method, seed) for seed in range(len(values))]
    for run, value in zip(runs, values, strict=True):
        run.add(records.metrics(name, {"clean": value}, **details))
    return runs


def test_methods_of_several_seeds_are_tested_over_them(make_run, records):
    one = seeds_of(make_run, records, "A", (0.5, 0.52, 0.54))
    other = seeds_of(make_run, records, "B", (0.6, 0.64))
    alone = seeds_of(make_run, records, "C", (0.9,))
    (text,) = seed_tests(rows_of(*one, *other, *alone), "clean")
    assert text == (
        "“A” against “B” over 3 and 2 trainings: -10.00 points, -21.95 to +1.95 "
        "(Welch p = 0.066: no difference that chance does not explain)"
    )
    apart = seeds_of(make_run, records, "C", (0.2, 0.21, 0.22))
    (text,) = seed_tests(rows_of(*one, *apart), "clean")
    assert text.endswith(": a difference)")


@pytest.mark.parametrize("change", [{"eps": 0.1}, {"shape": [1, 8, 8]}, {"n": 500}])
def test_seeds_judged_otherwise_are_not_tested(make_run, records, change):
    one = seeds_of(make_run, records, "A", (0.5, 0.52))
    other = seeds_of(make_run, records, "B", (0.6, 0.64), **change)
    assert seed_tests(rows_of(*one, *other), "clean") == []


@pytest.mark.parametrize(("count", "left_out"), [(4, None), (5, "4 of 10")])
def test_of_many_pairs_the_first_are_told_and_the_others_counted(make_run, records, count, left_out):
    def row(i, seeds):
        runs = [make_run(f"m{i}/seed-{seed}", f"m{i}", seed) for seed in range(seeds)]
        for seed, run in enumerate(runs):
            run.add(records.metrics(f"m{i}", {"clean": 0.5 + 0.01 * seed, "worst case": 0.5}))
        return runs

    singles = rows_of(*(run for i in range(count) for run in row(i, 1)))
    several = rows_of(*(run for i in range(10, 10 + count) for run in row(i, 2)))
    told = [paired(singles, lambda row: {"0": "", "1": "PGD-20"}), seed_tests(several, "clean")]
    for texts, first in zip(told, ("m0", "m10"), strict=True):
        assert sum(" against " in text for text in texts) == 6
        assert sum(text.startswith(f"“{first}”") for text in texts) == count - 1
        more = [text for text in texts if " against " not in text]
        assert more == ([f"{left_out} pairs left out; name fewer runs to see them"] if left_out else [])


def test_differing_settings_are_listed_without_seed_and_place(make_run, records):
    one = evaluated(make_run, records, "x", 0.5)
    two = make_run("y", "part", seed=5)
    two.add(records.metrics("PART", {"clean": 0.5}))
    assert differences(rows_of(one, two)) == [("train.method", ["at", "part"])]


def test_columns_begin_with_clean_and_end_with_the_worst_case(study):
    assert metric_names(group(read_runs(study))) == ["clean", "PGD-20", "PGD-50x5 margin", "worst case"]


@pytest.mark.parametrize(
    ("eps", "norm", "text"),
    [(8 / 255, "linf", "8/255"), (7.07 / 255, "linf", "7.07/255"), (0.5, "l2", "0.5")],
)
def test_radii_read_as_people_write_them(eps, norm, text):
    assert radius_text(eps, norm) == text


def test_many_overlaps_are_counted_instead_of_listed(make_run, records):
    near = [evaluated(make_run, records, f"r{i}", 0.5 + i / 1000, method=f"m{i}") for i in range(5)]
    (text,) = comparisons(rows_of(*near), "clean")
    assert text == "the 95 % intervals of all 5 overlap. Do not read these differences as gains."
    (text,) = comparisons(rows_of(*near, evaluated(make_run, records, "far", 0.1, method="far")), "clean")
    assert text.startswith("10 pairs of 95 % intervals overlap, “m4” with 4 of the 5 others.")


def test_rows_that_share_a_method_are_told_apart_by_the_run_name(make_run, records):
    one, two = (evaluated(make_run, records, name, 0.5, seed=0) for name in "xy")
    assert [(row.method, row.label) for row in rows_of(one, two)] == [("AT", "AT (x)"), ("AT", "AT (y)")]


def test_what_does_not_make_another_run_does_not_make_another_method():
    assert set(NOT_IDENTITY) <= set(NOT_METHOD)
