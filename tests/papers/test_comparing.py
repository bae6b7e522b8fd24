"""Tests over seeds and the best row of a sweep, from records that are written by hand."""

import pytest

from counterpart import papers
from counterpart.cli import main
from counterpart.errors import UserError
from counterpart.papers.parts_generalised import CLEAN_SWEEP
from counterpart.records import Record, write
from counterpart.statistics import welch

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


def test_seeds_are_tested_where_both_rows_have_two():
    pairs = (("Downsampled", "ResNet-50"), ("Pixel", "ResNet-50"))
    found = measured(
        {"ResNet-50": {0: 0.4, 1: 0.44}, "Downsampled": {0: 0.5, 2: 0.56, 3: 0.53}, "Pixel": {0: 0.9}}
    )
    tests = papers.seed_differences(experiment(pairs=pairs), found)
    assert tests == {("Downsampled", "ResNet-50", "textures"): (welch([0.5, 0.56, 0.53], [0.4, 0.44]), 3, 2)}
    assert papers.seed_differences(experiment(), found) == {}


def test_seeds_that_saw_fewer_images_and_costs_are_not_tested():
    pairs = (("Downsampled", "ResNet-50"),)
    found = measured({"ResNet-50": {0: 0.4, 1: 0.44}, "Downsampled": {0: 0.5, 1: 0.56}})
    [few] = measured({"ResNet-50": {2: 0.9}}, n=50).values()
    found["ResNet-50", "textures"] += few
    assert papers.seed_differences(experiment(pairs=pairs), found)[(*pairs[0], "textures")][1:] == (2, 2)
    found["ResNet-50", "textures"][1] = few[0]
    assert papers.seed_differences(experiment(pairs=pairs), found) == {}
    costs = measured({"ResNet-50": {0: 4.0, 1: 5}, "Downsampled": {0: 6.0, 1: 7}}, "cost", unit="s")
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
        ("ResNet-50", (0.4, 0.4)),
        ("Downsampled", (0.6, 0.8)),
        ("Downsampled c_seg 0.9", (0.4, 0.4)),
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
    assert "+30.00" in by_images.split("would other images")[1]
    assert "p = 0.2, 2 and 2 seeds" in by_seeds
    assert "is optimistic" in told.replace("\n", " ")
    assert main(["papers", "list", "--best-by", "textures"]) == 2
