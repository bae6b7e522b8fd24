"""Plots of cost and of common corruptions: every point of the records, and none where one point would stand alone."""

import pytest

from counterpart.records import Record
from counterpart.report.corruption_plots import corruption_plots
from counterpart.report.cost import training_cost
from counterpart.report.drawing import _spread
from counterpart.report.grouping import group
from counterpart.report.runs import read_runs
from counterpart.report.where import _chance

from .test_page import corrupted


def judged_of(*runs):
    return [(run, run.corruptions[0]) for run in read_runs([run.path for run in runs])]


def test_cost_is_seconds_of_training_against_the_worst_case(make_run, records):
    paths = []
    for name, epochs, worst in (("at", 12, 0.5), ("part", 24, 0.55), ("clean", 0, 0.1)):
        run = make_run(name, name)
        run.add(records.epochs(epochs))  # three seconds each
        run.add(records.metrics(name.upper(), {"clean": 0.8, "PGD-20": worst, "worst case": worst}))
        paths.append(run.path)
    plot = training_cost(group(read_runs(paths)))
    assert (
        plot.alt == "Cost of training. AT: 36 s, 50.0%; PART: 72 s, 55.0%."
    )  # of the third no training is known
    assert training_cost(group(read_runs(paths[:1]))) is None
    assert training_cost(group(read_runs([paths[0], paths[2]]))) is None


def test_corruptions_are_drawn_over_severities_and_one_by_one(make_run):
    run = make_run("at")
    run.add(corrupted(["fog", "snow"], [1, 2, 3]))
    by_severity, by_corruption = corruption_plots(judged_of(run), [0.1])
    assert by_severity.alt == "Clean accuracy, then over severities. at: 80.0%, 49.0%, 48.0%, 47.0%."
    assert by_corruption.alt.startswith(
        "Accuracy by corruption. severity 1: snow 49.0%, fog 49.0%; severity 2: snow 48.0%"
    )
    assert "a point for each severity" in by_corruption.caption


def test_of_several_runs_each_has_a_line_and_a_point(make_run):
    first, second = make_run("at"), make_run("part", "part")
    first.add(corrupted(["fog", "snow"], [1, 3]))
    second.add(corrupted(["fog", "snow"], [1, 3], key="c2", value=0.6))
    by_severity, by_corruption = corruption_plots(judged_of(first, second), [None, None])
    assert by_severity.alt.endswith("at: 80.0%, 49.0%, 47.0%; part: 80.0%, 59.0%, 57.0%.")
    assert (
        by_corruption.alt == "Accuracy by corruption. at: snow 48.0%, fog 48.0%; part: snow 58.0%, fog 58.0%."
    )


def test_a_single_severity_has_no_curve_and_a_single_corruption_no_points(make_run):
    first, second, third = make_run("a"), make_run("b"), make_run("c")
    first.add(corrupted(["fog", "snow"], [5]))
    second.add(corrupted(["fog"], [5]))
    third.add(corrupted(["fog"], [1, 2], left_out=["frost"]))
    assert [plot.name for plot in corruption_plots(judged_of(first), [])] == ["accuracy-by-corruption"]
    assert corruption_plots(judged_of(second), []) == []
    assert [plot.name for plot in corruption_plots(judged_of(third), [])] == ["accuracy-over-severities"]


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([10, 50], [10, 50]),
        ([50, 50, 51], [50, 57.5, 65]),
        ([99, 99.5, 100], [85, 92.5, 100]),  # words do not climb out of the axis
    ],
)
def test_names_at_the_ends_of_lines_stand_apart(heights, expected):
    assert _spread(heights, 0, 100) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("per_class", "chance"), [({"a": [3, 6], "b": [1, 2]}, 0.75), ({"a": [3, 6]}, None), (None, None)]
)
def test_a_where_profile_knows_chance_by_its_classes(per_class, chance):
    record = Record("metric", "where/everything", 0.5, 8, (0.2, 0.8), details={"per_class": per_class})
    assert _chance([record]) == chance
    assert _chance([]) is None
