"""Tests over seeds and the best row of a sweep, from records that are written by hand."""

from dataclasses import replace

import pytest

from counterpart import papers
from counterpart.cli import main
from counterpart.cli.papers import _beside_margin
from counterpart.errors import UserError
from counterpart.papers.parts_generalised import CLEAN_SWEEP
from counterpart.records import Record, write
from counterpart.statistics import Difference, welch

ROWS = (
    papers.PaperRow("ResNet-50", "base"), papers.PaperRow("ResNet-50 slow", "base"),
    papers.PaperRow("Downsampled", "down"), papers.PaperRow("Downsampled slow", "down"),
    papers.PaperRow("Pixel", "pixel"),
)  # fmt: skip


def measured(values, column="textures", n=100, **details):
    """{row: {seed: accuracy}} as an experiment's records."""
    return {
        (row, column): [
            Record("metric", f"{row}/{column}", value, n, (value - 0.1, value + 0.1), seed, details=details)
            for seed, value in seeds.items()
        ]
        for row, seeds in values.items()
    }


def experiment(**options):
    return papers.Experiment("parts/sweep", "", ROWS, {"textures": [], "cost": []}, **options)


def test_seeds_are_tested_where_both_rows_have_three():
    pairs = (("Downsampled", "ResNet-50"), ("Pixel", "ResNet-50"))
    found = measured(
        {
            "ResNet-50": {0: 0.4, 1: 0.44, 2: 0.43, 3: 0.41},
            "Downsampled": {0: 0.5, 2: 0.56, 3: 0.53},
            "Pixel": {0: 0.9, 1: 0.91},
        }
    )
    tests = papers.seed_differences(experiment(pairs=pairs), found)
    expected = welch([0.5, 0.56, 0.53], [0.4, 0.44, 0.43, 0.41])
    assert tests == {("Downsampled", "ResNet-50", "textures"): (expected, 3, 4)}
    assert papers.seed_differences(experiment(), found) == {}


def test_seeds_that_saw_fewer_images_and_costs_are_not_tested():
    pairs = (("Downsampled", "ResNet-50"),)
    found = measured({"ResNet-50": {0: 0.4, 1: 0.44, 2: 0.4}, "Downsampled": {0: 0.5, 1: 0.56, 2: 0.5}})
    [few] = measured({"ResNet-50": {3: 0.9}}, n=50).values()
    found["ResNet-50", "textures"] += few
    assert papers.seed_differences(experiment(pairs=pairs), found)[(*pairs[0], "textures")][1:] == (3, 3)
    found["ResNet-50", "textures"][1] = few[0]
    assert papers.seed_differences(experiment(pairs=pairs), found) == {}
    seconds = {"ResNet-50": {0: 4.0, 1: 5, 2: 6}, "Downsampled": {0: 6.0, 1: 7, 2: 8}}
    costs = measured(seconds, "cost", unit="s")
    assert papers.seed_differences(experiment(pairs=pairs), costs) == {}


def test_the_best_row_of_each_recipe_is_chosen_on_the_seeds_that_all_have():
    found = measured(
        {
            "ResNet-50": {0: 0.4, 1: 0.9}, "ResNet-50 slow": {0: 0.45},
            "Downsampled": {0: 0.5, 1: 0.4}, "Downsampled slow": {0: 0.3, 1: 0.55, 2: 0.9},
        }
    )  # fmt: skip
    best = papers.best_rows(experiment(notes=("note",)), found, "textures")
    assert [row.name for row in best.rows] == ["ResNet-50 slow", "Downsampled"]  # means on seeds 0; 0 and 1
    assert best.pairs == (("Downsampled", "ResNet-50 slow"),)
    assert best.notes[0].startswith("Rows: of each recipe the best on textures, of 2, 2 that were measured.")
    assert best.notes[0].endswith("what stands under textures is optimistic.")
    assert best.notes[1:] == ("note",)


@pytest.mark.parametrize(
    ("found", "column", "message"),
    [
        ({}, "texture", "has no column 'texture'. Did you mean 'textures'"),
        ({}, "textures", "no row of parts/sweep has been measured on textures: run it first"),
        (
            measured({"ResNet-50": {0: 0.4}, "ResNet-50 slow": {1: 0.4}}),
            "textures",
            "recipe base share no seed",
        ),
        (
            measured({"Pixel": {0: 4.0}}, "cost", unit="s"),
            "cost",
            "cost is no share, of which the largest is best",
        ),
    ],
)
def test_what_cannot_be_chosen_is_one_line(found, column, message):
    with pytest.raises(UserError, match=message):
        papers.best_rows(experiment(), found, column)


def test_the_sweep_is_that_of_the_paper():
    """Six rates and decays of each model, and nine weights of the loss of parts, where these have one."""
    counts = {name: sum(row.recipe == recipe for row in CLEAN_SWEEP.rows)
              for name, recipe in (("ResNet-50", "baseline-clean"), ("Downsampled", "downsampled-clean"))}  # fmt: skip
    assert counts == {"ResNet-50": 6, "Downsampled": 6 + 9 - 1}
    table = papers.find("parts/table-21").rows
    assert [row.changes for row in table] == [
        CLEAN_SWEEP.rows[at].changes for at in 2 * (0, 6, 20)
    ]  # trained once


def test_the_best_of_a_sweep_is_shown_with_both_tests(tmp_path, capsys):
    right = {0.4: "11000", 0.6: "11100", 0.8: "11110"}
    for row, values in (
        ("ResNet-50", (0.4, 0.4, 0.4)),
        ("Downsampled", (0.6, 0.8, 0.6)),
        ("Downsampled c_seg 0.9", (0.4, 0.4, 0.4)),
    ):
        write(
            tmp_path / "papers" / "small" / "part-clean-sweep-part-imagenet.jsonl",
            [
                Record(
                    "metric", f"{row}/textures", value, 5, (value - 0.1, value + 0.1), seed,
                    details={"right": right[value], "model": "parts"},
                )
                for seed, value in enumerate(values)
            ],
        )  # fmt: skip
    words = ["papers", "show", "parts/clean-sweep", "--runs", str(tmp_path)]
    assert main([*words, "--best-by", "textures"]) == 0
    told = capsys.readouterr().out
    assert "c_seg 0.9" not in told
    assert "c_seg 0.9" in (main(words), capsys.readouterr().out)[1]
    lines = [line for line in told.splitlines() if line.startswith("│") or "Differences" in line]
    text = "\n".join(lines)
    by_images, by_seeds = text.split("would other trainings")
    assert "+26.67" in by_images.split("would other images")[1]
    assert "p = 0.057" in by_seeds
    assert "3 and 3 seeds" in by_seeds
    assert told.count("p by Holm over the 1 differences of this table: * survives it.") == 2
    assert "is optimistic" in told.replace("\n", " ")
    assert main(["papers", "list", "--best-by", "textures"]) == 2


def shown(experiment, measured, tmp_path, capsys, monkeypatch):
    """What ``papers show`` prints of an experiment, with blanks in place of lines."""
    monkeypatch.setitem(papers.EXPERIMENTS, experiment.name, experiment)
    records = [record for of_cell in measured.values() for record in of_cell]
    write(tmp_path / "papers" / "small" / f"{experiment.name.replace('/', '-')}-cifar10.jsonl", records)
    assert main(["papers", "show", experiment.name, "--runs", str(tmp_path)]) == 0
    return " ".join(capsys.readouterr().out.split())


def answers(right, n=200):
    """Whether each of n images is right, of which so many are."""
    return "1" * right + "0" * (n - right)


FOUR = {"ResNet-50": 100, "Downsampled": 106, "Pixel": 120, "Downsampled slow": 100}


def of_images(values, **details):
    """Records of one seed that say of each image whether it was right."""
    return {
        (row, "textures"): [
            Record("metric", f"{row}/textures", right / 200, 200, (0.4, 0.6), 0,
                   details={"right": answers(right), "model": "parts", **details})
        ]
        for row, right in values.items()
    }  # fmt: skip


def test_differences_are_corrected_for_how_many_the_table_shows():
    """By itself the first of three survives; with two others beside it, it does not."""
    pairs = tuple((row, "ResNet-50") for row in ("Downsampled", "Pixel", "Downsampled slow"))
    differences = {
        (*pair, "textures"): Difference(mean, 0.01)
        for pair, mean in zip(pairs, (0.02, 0.05, 0.0), strict=True)
    }
    judged = papers.judge(experiment(pairs=pairs), None, differences)
    first, second, third = (judged[*pair, "textures"] for pair in pairs)
    assert first.p == pytest.approx(2 * 0.0455, abs=1e-4)
    assert (first.differs, second.differs, third.p) == (False, True, 1)
    assert second.p == pytest.approx(3 * 5.733e-7, rel=1e-3)
    alone = papers.judge(experiment(pairs=pairs), None, {(*pairs[0], "textures"): Difference(0.02, 0.01)})
    assert alone[*pairs[0], "textures"].differs


def test_the_primary_contrast_is_tested_alone_against_its_margin():
    pairs = (("Downsampled", "ResNet-50"), ("Pixel", "ResNet-50"))
    primary = papers.PrimaryContrast(*pairs[0], "textures", margin=0.05)
    differences = {
        (*pairs[0], "textures"): Difference(0.02, 0.01),
        (*pairs[1], "textures"): Difference(0.02, 0.01),
    }
    judged = papers.judge(experiment(pairs=pairs, primary=primary), None, differences)
    first, second = (judged[*pair, "textures"] for pair in pairs)
    assert (first.alone, second.alone) == (True, False)
    assert first.p == second.p == pytest.approx(0.0455, abs=1e-4)  # two families of one
    assert first.p_equivalent == pytest.approx(0.00135, abs=1e-5)  # the margin is three errors away
    assert first.equivalent
    assert (second.margin, second.p_equivalent, second.equivalent) == (None, None, False)


def test_a_margin_is_half_of_what_the_paper_gains():
    """+4 in the paper: a margin of 2 points, which an error of half a point decides and one of two points does not."""
    published = [
        papers.PaperRow(name, "base", {"cifar10": {"textures": value}})
        for name, value in (("A", 44.0), ("B", 40.0))
    ]
    table = papers.Experiment("x", "", published, {"textures": []}, pairs=(("A", "B"), ("B", "A")))
    key, other = ("A", "B", "textures"), ("B", "A", "textures")

    def judged(error, dataset="cifar10", key=key):
        return papers.judge(table, dataset, {key: Difference(0.001, error)})[key]

    assert judged(0.005).margin == pytest.approx(0.02)
    assert (judged(0.005).equivalent, judged(0.02).equivalent) == (True, False)
    assert judged(0.005, None).margin is None
    assert judged(0.005, key=other).margin is None  # the paper has no gain there


def test_the_primary_contrast_and_the_margins_are_shown(tmp_path, capsys, monkeypatch):
    pairs = tuple((row, "ResNet-50") for row in ("Downsampled", "Pixel", "Downsampled slow"))
    primary = papers.PrimaryContrast("Downsampled", "ResNet-50", "textures", margin=0.03)
    table = experiment(pairs=pairs, primary=primary)
    table = replace(table, columns={"textures": []})
    told = shown(table, of_images(FOUR), tmp_path, capsys, monkeypatch)
    # 6 of 200 images moved, one way: an error of sqrt((7 / 202 - (6 / 202)**2) / 202) = 1.293 points
    assert "primary, p = 0.02 " in told
    assert "±3: not decided (p = 0.5)" in told
    assert "±5.13 by itself" in told
    assert "p by Holm over the 2 differences of this table but the primary one: * survives it." in told
    assert (
        "Primary, declared before the runs and tested alone: Downsampled minus ResNet-50, textures, margin 3 points."
    ) in told
    assert "Intervals of one or two trainings are over these models' images." in told
    assert "Intervals of the differences are over these models' images." in told


def test_differences_of_two_trainings_are_shown_as_two_points(tmp_path, capsys, monkeypatch):
    table = replace(experiment(pairs=(("Pixel", "ResNet-50"),)), columns={"textures": []})
    found = of_images({"Pixel": 120, "ResNet-50": 100})
    for row, right in {"Pixel": 110, "ResNet-50": 120}.items():
        [again] = of_images({row: right})[row, "textures"]
        found[row, "textures"].append(replace(again, seed=1))
    told = shown(table, found, tmp_path, capsys, monkeypatch)
    assert "+2.50" in told
    assert "+10.00 and -5.00" in told
    assert "Welch's test" not in told


def test_two_trainings_are_shown_as_two_points(tmp_path, capsys, monkeypatch):
    found = measured({"Pixel": {0: 0.4, 1: 0.9}}, model="parts")
    told = shown(replace(experiment(), columns={"textures": []}), found, tmp_path, capsys, monkeypatch)
    assert "40.00 and 90.00" in told
    assert "(55.0 to 75.0), 2 seeds" in told  # the images' interval: no t of one degree of freedom
    assert "of two trainings both values are shown" in told


def test_primary_contrasts_are_among_the_pairs_and_columns_of_their_experiments():
    declared = {name: one for name, one in papers.EXPERIMENTS.items() if one.primary}
    assert set(declared) >= {"parts/photographs"}
    for name, one in declared.items():
        assert (one.primary.first, one.primary.second) in one.pairs, name
        assert one.primary.column in papers.columns(one), name
    assert papers.find("parts/photographs").primary.margin == 0.03


def test_rows_that_were_chosen_by_their_results_are_no_primary_contrast():
    primary = papers.PrimaryContrast("Downsampled", "ResNet-50", "textures", margin=0.03)
    found = measured({"ResNet-50": {0: 0.4}, "Downsampled": {0: 0.5}})
    assert papers.best_rows(experiment(primary=primary), found, "textures").primary is None


@pytest.mark.parametrize(("mean", "alone", "words"), [
    (0.2, True, "larger"), (-0.2, True, "larger"), (0.2, False, "not decided (p = 1)"),
    (0.04, True, "not decided (p = 0.84)"), (0.0, True, "same (p = 0.0013)"),
])  # fmt: skip
def test_a_primary_difference_may_be_larger_than_its_margin(mean, alone, words):
    difference = Difference(mean, 0.01)
    judged = papers.comparing.JudgedDifference(difference.p, 0.03, difference.p_equivalent(0.03), alone)
    assert _beside_margin(difference, judged) == words
