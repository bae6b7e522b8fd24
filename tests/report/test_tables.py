"""Grouping over seeds, intervals over seeds, and the comparisons that a reader may make."""

from dataclasses import replace
from statistics import stdev

import pytest

from counterpart.config import NOT_IDENTITY
from counterpart.report import write_report
from counterpart.report.comparisons import (
    PairTest,
    paired,
    ranked_in_words,
    seed_tests,
    told_apart,
    verdicts,
)
from counterpart.report.grouping import NOT_METHOD, differences, group
from counterpart.report.page import _standing
from counterpart.report.runs import read_runs
from counterpart.report.setting import radius_text
from counterpart.report.tables import metric_names
from counterpart.statistics import Difference, holm, wilson


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
    (text,) = ranked_in_words(rows_of(*runs), "worst case")
    assert text == "95 % intervals overlap: “near” with “high”. Do not read these differences as gains."
    (text,) = ranked_in_words(rows_of(*runs[:2]), "worst case")
    assert text == (
        "no 95 % intervals overlap; the best first: “high”, “low”. Each interval is its row's alone, without a "
        "correction for the pair: that is no test of a difference."
    )
    far = evaluated(make_run, records, "far", 0.8, method="far")
    (text,) = ranked_in_words(rows_of(*runs[:2], far), "worst case")
    assert "without a correction for the 3 pairs" in text


@pytest.mark.parametrize("change", [{"eps": 0.1}, {"shape": [1, 8, 8]}])
def test_rows_of_different_settings_are_never_compared(make_run, records, change):
    one = evaluated(make_run, records, "x", 0.5, method="A")
    other = evaluated(make_run, records, "y", 0.9, method="B", **change)
    assert ranked_in_words(rows_of(one, other), "clean") == []


def seeds_of(make_run, records, name, values, **details):
    method = {"A": "at", "B": "part", "C": "clean"}[name]
    runs = [make_run(f"{name}-{seed}", method, seed) for seed in range(len(values))]
    for run, value in zip(runs, values, strict=True):
        run.add(records.metrics(name, {"clean": value}, **details))
    return runs


def test_methods_of_several_seeds_are_tested_over_them(make_run, records):
    one = seeds_of(make_run, records, "A", (0.5, 0.52, 0.54))
    other = seeds_of(make_run, records, "B", (0.52, 0.56, 0.54))
    two = seeds_of(make_run, records, "C", (0.9, 0.91))
    tests = seed_tests(rows_of(*one, *other, *two), "clean")
    ([text],), family = verdicts([tests])
    assert text == (
        "“A” against “B” over 3 and 3 trainings: -2.00 points, -6.53 to +2.53 "
        "(Welch p = 0.29, by Holm 0.29: not decided; no more than 5.5 points either way, by two one-sided tests at 5 %)"
    )
    assert family == "Holm's correction is over the one test on this page (Welch's)"
    apart = seeds_of(make_run, records, "C", (0.2, 0.21, 0.22))
    ([text],), _ = verdicts([seed_tests(rows_of(*one, *apart), "clean")])
    assert text.endswith(": a difference)")


def test_a_difference_on_a_page_survives_the_family_that_the_page_shows():
    """p of 0.02, 0.03 and 0.5 become 0.06, 0.06 and 0.5; 0.001 survives beside them."""
    p_values = {"a": 0.02, "b": 0.03, "c": 0.5, "d": 0.001}
    tests = [PairTest(words, "Welch", p, Difference(0.1, 0.02)) for words, p in p_values.items()]
    (first, second), family = verdicts([tests[:1], tests[1:3]])
    assert [text.split(" (")[1].split(";")[0] for text in (*first, *second)] == [
        "Welch p = 0.02, by Holm 0.06: not decided",
        "Welch p = 0.03, by Holm 0.06: not decided",
        "Welch p = 0.5, by Holm 0.5: not decided",
    ]
    assert family == "Holm's correction is over the 3 tests on this page (Welch's)"
    (_, (*_, last)), _ = verdicts([tests[:2], tests[2:]])
    assert last == "d (Welch p = 0.001, by Holm 0.004: a difference)"
    ([alone],), _ = verdicts([tests[:1]])
    assert alone.endswith("a difference)")
    assert verdicts([[], []]) == ([[], []], "")


def test_a_stated_margin_is_tested_as_an_equivalence_in_a_family_of_its_own():
    """Errors of 0.2 points: 0 lies 5 of them inside a margin of 1 point, and 0.7 only 1.5, p 0.067 and Holm 0.067."""
    tests = [
        PairTest(words, "Welch", 0.5, Difference(mean, 0.002)) for words, mean in (("a", 0.0), ("b", 0.007))
    ]
    ([same, open_],), family = verdicts([tests], margin=0.01)
    assert same.endswith("; within ±1 points the same, by Holm 5.7e-07)")
    assert open_.endswith("; within ±1 points not decided, by Holm 0.067)")
    assert family.endswith("(Welch's), and over as many of no difference")
    ([without, _],), _ = verdicts([tests])
    assert "within" not in without


def test_two_seeds_are_shown_as_two_points(make_run, records):
    (two,) = rows_of(*seeds_of(make_run, records, "A", (0.5, 0.52)))
    assert two.accuracy("clean").points == [0.5, 0.52]
    (three,) = rows_of(*seeds_of(make_run, records, "B", (0.5, 0.52, 0.54)))
    assert three.accuracy("clean").points == ()
    width = two.accuracy("clean").high - two.accuracy("clean").low
    assert width == pytest.approx(2 * 1.96 * (0.51 * 0.49 / 1000) ** 0.5, rel=0.01)  # of images alone


@pytest.mark.parametrize("change", [{"eps": 0.1}, {"shape": [1, 8, 8]}, {"n": 500}])
def test_seeds_judged_otherwise_are_not_tested(make_run, records, change):
    one = seeds_of(make_run, records, "A", (0.5, 0.52, 0.51))
    other = seeds_of(make_run, records, "B", (0.6, 0.64, 0.62), **change)
    assert seed_tests(rows_of(*one, *other), "clean") == []


def test_many_pairs_are_a_matrix_and_all_of_them_are_the_family(make_run, records):
    def row(i, seeds):
        runs = [make_run(f"m{i}/seed-{seed}", f"m{i}", seed) for seed in range(seeds)]
        for seed, run in enumerate(runs):
            run.add(records.metrics(f"m{i}", {"clean": 0.5 + 0.01 * seed, "worst case": 0.5}))
        return runs

    singles = rows_of(*(run for i in range(4) for run in row(i, 1)))
    several = rows_of(*(run for i in range(10, 12) for run in row(i, 3)))
    stands = {
        row.label: {str(i): float(i < 10 * number) for i in range(40)} for number, row in enumerate(singles)
    }
    tests = [paired(singles, lambda row: stands[row.label]), seed_tests(several, "clean")]
    (matrix, sentences), family = verdicts(tests)
    assert "over the 7 tests" in family
    assert len(sentences) == 1
    assert matrix.labels == ["m0", "m1", "m2", "m3"]
    assert len(matrix.cells) == 12
    assert matrix.cells["m3", "m0"].points == "+75.0"
    assert matrix.cells["m0", "m3"].points == "-75.0"
    assert matrix.cells["m0", "m3"].decided
    # 10 images stand in one alone: McNemar p = 2 / 2^10, times at least 3 by Holm
    p = holm([test.p for group in tests for test in group])[0]
    assert matrix.cells["m0", "m1"].decided == (p < 0.05)
    assert f"McNemar p = 0.002, by Holm {p:.2g}" in matrix.cells["m1", "m0"].words


def test_a_matrix_stands_on_the_page_with_every_pair_in_words(make_run, records):
    paths = []
    for name, value in (("a", 0.2), ("b", 0.5), ("c", 0.8)):
        runs = [make_run(f"{name}/seed-{seed}", name, seed) for seed in range(3)]
        for seed, run in enumerate(runs):
            run.add(records.metrics(f"<{name}>", {"clean": value + 0.01 * seed, "worst case": value}))
        paths.append(runs[0].path.parent)
    page = write_report(paths).read_text(encoding="utf-8")
    assert page.count('class="matrix"') == 2  # of clean accuracies, and of the worst case
    assert (
        page.count("“&lt;a&gt;” against “&lt;c&gt;” over 3 and 3 trainings") == 2 * 3
    )  # two titles and a sentence
    assert "-60.0 ≠" in page
    assert "+60.0 ≠" in page


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
    (text,) = ranked_in_words(rows_of(*near), "clean")
    assert text == "the 95 % intervals of all 5 overlap. Do not read these differences as gains."
    (text,) = ranked_in_words(rows_of(*near, evaluated(make_run, records, "far", 0.1, method="far")), "clean")
    assert text.startswith("10 pairs of 95 % intervals overlap, “m4” with 4 of the 5 others.")


def test_rows_that_share_a_method_are_told_apart_by_the_run_name(make_run, records):
    one, two = (evaluated(make_run, records, name, 0.5, seed=0) for name in "xy")
    assert [(row.method, row.label) for row in rows_of(one, two)] == [("AT", "AT (x)"), ("AT", "AT (y)")]


def test_what_does_not_make_another_run_does_not_make_another_method():
    assert set(NOT_IDENTITY) <= set(NOT_METHOD)


def folds_of(make_run, records, name, values, sizes=(300, 310, 290), seed=0, count=3):
    """A run for each fold, judged on images of its own; each fold has another number of them."""
    method = {"A": "at", "B": "part"}[name]
    runs = []
    for number, (value, n) in enumerate(zip(values, sizes, strict=False), start=1):
        fold = f"{number}/{count}"
        run = make_run(f"{name}-{seed}-{number}", method, seed, data={"name": "parts", "fold": fold})
        run.add(records.metrics(name, {"clean": value, "worst case": value / 2}, n=n, fold=fold))
        runs.append(run)
    return runs


def test_folds_are_one_row_whose_counts_add_up(make_run, records):
    (row,) = rows_of(*folds_of(make_run, records, "A", (0.5, 0.6, 0.4)))
    correct = 150 + 186 + 116
    clean = row.accuracy("clean")
    assert (row.n, row.seeds, row.seed_count, row.folds) == (900, "0", 1, "all 3 folds")
    assert clean.value == correct / 900
    assert (clean.low, clean.high) == wilson(correct, 900)
    assert clean.sd is None  # folds are no seeds: their spread is that of other images
    assert str(row.setting).startswith("digits test (all 3 folds)")


def test_seeds_of_a_cross_validation_are_averaged_after_their_folds_are_pooled(make_run, records):
    first = folds_of(make_run, records, "A", (0.5, 0.6, 0.4))
    second = folds_of(make_run, records, "A", (0.6, 0.6, 0.6), seed=1)
    (row,) = rows_of(*first, *second)
    shares = [452 / 900, 540 / 900]
    assert row.values("clean") == pytest.approx(shares)
    assert row.accuracy("clean").value == pytest.approx(sum(shares) / 2)
    assert row.accuracy("clean").sd == pytest.approx(stdev(shares))
    assert (row.n, row.seed_count, row.seeds) == (900, 2, "0, 1")
    other = [
        run
        for seed, v in ((0, 0.2), (1, 0.21), (2, 0.22))
        for run in folds_of(make_run, records, "B", (v, v, v), seed=seed)
    ]
    third = folds_of(make_run, records, "A", (0.5, 0.5, 0.5), seed=2)
    (test,) = seed_tests(rows_of(*first, *second, *third, *other), "clean")
    assert "over 3 and 3 seeds" in test.words


def test_some_folds_are_said_and_are_not_compared_with_all(make_run, records):
    some = folds_of(make_run, records, "A", (0.5, 0.6))
    every = folds_of(make_run, records, "B", (0.9, 0.9, 0.9))
    one, other = rows_of(*some, *every)
    assert (one.folds, other.folds) == ("folds 1, 2 of 3", "all 3 folds")
    assert one.n == 610
    assert ranked_in_words([one, other], "clean") == []
    (alone,) = rows_of(some[0])
    assert alone.folds == "fold 1 of 3"


def test_folds_of_another_number_or_judged_elsewhere_are_rows_of_their_own(make_run, records):
    of_three = folds_of(make_run, records, "A", (0.5, 0.6, 0.4))
    of_two = folds_of(make_run, records, "A", (0.5, 0.6), seed=7, count=2)
    assert len(rows_of(*of_three, *of_two)) == 2
    elsewhere = make_run("x", "at", 0, data={"name": "parts", "fold": "3/3"})
    elsewhere.add(records.metrics("A", {"clean": 0.4, "worst case": 0.2}, n=300, fold="1/3"))
    assert [len(row.runs) for row in rows_of(*of_three[:2], elsewhere)] == [2, 1]


def test_a_fold_without_its_value_gives_no_pooled_one(make_run, records):
    runs = folds_of(make_run, records, "A", (0.5, 0.6))
    last = make_run("last", "at", 0, data={"name": "parts", "fold": "3/3"})
    made = records.metrics("A", {"clean": 0.5, "worst case": 0.5}, fold="3/3")
    last.add([made[0], replace(made[1], value=None, interval=None)])
    (row,) = rows_of(*runs, last)
    assert row.accuracy("worst case") is None
    assert row.accuracy("clean") is not None


def test_parts_are_averaged_over_folds_by_their_images(make_run, records):
    runs = folds_of(make_run, records, "A", (0.5, 0.5))
    tables = ({"wheel": (0.2, 30), "rare": (0.5, 4)}, {"wheel": (0.4, 10)})
    for run, value, n, table in zip(runs, (0.1, 0.3), (30, 90), tables, strict=True):
        run.add(records.part_metrics({"mIoU clean": value}, n=n, per_part=table))
    (row,) = rows_of(*runs)
    together = row.part_metric("mIoU clean")
    assert together.value == pytest.approx(0.1 * 0.25 + 0.3 * 0.75)
    halves = [1.96 * (value * (1 - value) / n) ** 0.5 for value, n in ((0.1, 30), (0.3, 90))]
    expected = ((0.25 * halves[0]) ** 2 + (0.75 * halves[1]) ** 2) ** 0.5
    assert together.high - together.value == pytest.approx(expected)
    assert row.n_of_parts == 120
    parts = row.per_part("clean")
    assert parts["wheel"][0].value == pytest.approx(0.25)
    assert (parts["wheel"][1], parts["rare"][1]) == (40, 4)
    assert parts["rare"][0].low is None


def test_folds_of_two_methods_are_compared_image_by_image(make_run, records):
    rows = rows_of(
        *folds_of(make_run, records, "A", (0.5, 0.6)), *folds_of(make_run, records, "B", (0.6, 0.6))
    )
    outcomes = {"A": dict.fromkeys("abcdefghij", 1), "B": dict.fromkeys("abcdefghij", 0)}
    (test,) = paired(rows, lambda row: outcomes[row.method])
    assert "on the same 10 images: 10 stand only in the first, 0 only in the second" in test.words


def test_shares_of_draws_are_compared_image_by_image(make_run, records):
    rows = rows_of(
        *folds_of(make_run, records, "A", (0.5, 0.6)), *folds_of(make_run, records, "B", (0.6, 0.6))
    )
    outcomes = {"A": {"a": 0.75, "b": 0.5, "c": 1.0}, "B": {"b": 0.25, "a": 0.25, "c": 1.0}}
    (test,) = paired(rows, lambda row: outcomes[row.method])
    assert test.name == "Wald"
    assert "on the same 3 images: +25.00 points" in test.words
    error = ((0.5**2 + 0.25**2 + 1) / 5 - (0.75 / 5) ** 2) / 5
    assert test.difference.images_error == pytest.approx(error**0.5)


def pair(p, mean=0.02, first="a", second="b"):
    return PairTest("a against b", "McNemar", p, Difference(mean, 0.01), first, second)


def test_the_first_glance_says_whether_two_models_are_told_apart():
    assert told_apart([[], [], []]) == ""
    assert (
        told_apart([[], [], [pair(0.001)]])
        == "“a” does better than “b”, by 2.0 points: more than luck explains."
    )
    assert told_apart([[], [], [pair(0.001, -0.03)]]).startswith("“b” does better than “a”, by 3.0 points")
    none = told_apart([[], [], [pair(0.5, 0.01)]])
    assert none == "No difference found between “a” and “b” (1.0 point; up to 2.6 either way are left open)."


def test_the_first_glance_counts_pairs_after_the_correction_of_the_whole_page():
    worst = [pair(0.001), pair(0.02), pair(0.9)]
    assert told_apart([[], [], worst]) == "Tests of the worst case tell 2 of 3 pairs apart."
    clean = [pair(0.5), pair(0.5), pair(0.5)]  # tests of clean accuracy count for the correction and not here
    assert told_apart([clean, worst, []]) == "Tests of the worst case tell 1 of 3 pairs apart."


def test_what_was_not_attacked_is_not_compared_with_what_was(make_run, records):
    """The images that a model gets right are no worst case."""
    attacked = evaluated(make_run, records, "x", 0.5)
    clean = make_run("y", "at", epochs=9)
    clean.add(records.metrics("AT", {"clean": 0.5}))
    for run in (attacked, clean):
        table = run.path / "evaluations" / "k1" / "images.csv"
        table.parent.mkdir(parents=True)
        table.write_text("index,first_fooled_by\n0,\n1,clean\n")
        run.add([run.artifact(table, "images", "Per-image results.")])
    assert [_standing(row) for row in rows_of(attacked, clean)] == [{"0": 1.0, "1": 0.0}, None]
