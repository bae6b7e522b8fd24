"""Every published number that is stored, against a table of them that was typed from the papers by itself.

In the table a time is h:m:s of 80 epochs, and the paper's word for it is in the column of the experiment.
"""

import csv
from pathlib import Path

import pytest

from counterpart import papers

FILE = Path(__file__).parent / "published.csv"
TIMED = 80  # epochs of Table 9


def typed():
    """(experiment, data set, row, column) -> (value, +- or None)."""
    cells = {}
    with FILE.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            value = line["value"]
            if ":" in value:
                hours, minutes, seconds = map(int, value.split(":"))
                value = ((60 * hours + minutes) * 60 + seconds) / TIMED
            key = (line["table"], line["dataset"], line["row"], line["column"])
            assert key not in cells, key
            cells[key] = (float(value), float(line["plus_minus"]) if line["plus_minus"] else None)
    return cells


def stored(prefixes):
    """The same of the experiments whose names begin so."""
    cells = {}
    for name, experiment in papers.EXPERIMENTS.items():
        for row in experiment.rows if name.startswith(prefixes) else ():
            spreads = [(d, column) for d, values in row.plus_minus.items() for column in values]
            for dataset, values in row.published.items():
                for column, value in values.items():
                    spread = row.plus_minus.get(dataset, {}).get(column)
                    cells[name, dataset, row.name, column] = (value, spread)
            assert all((name, d, row.name, column) in cells for d, column in spreads), row.name
    return cells


COPIES = ("parts/figure-2", "parts/figure-4")  # points of Tables 1 and 7 to 9


def test_every_stored_number_was_typed_and_every_typed_number_is_stored():
    kept, expected = stored(("pixel/", "parts/")), typed()
    kept = {key: value for key, value in kept.items() if not key[0].startswith(COPIES)}
    assert {key: value for key, value in kept.items() if expected.get(key) != value} == {}
    assert set(expected) - set(kept) == set()
    assert len(kept) > 850


@pytest.mark.parametrize(
    ("table", "of"),
    [
        *((f"pixel/table-{n}", "all") for n in (1, 2, 3, 5, 6, 7, 8)),
        *((f"parts/table-{n}", "all") for n in (2, 3, 4, 16, 21)),
        ("pixel/table-4", "none"),
        ("parts/table-1", "none"),
    ],
)
def test_tables_that_print_a_spread_have_it_in_every_cell(table, of):
    spreads = [spread for key, (_, spread) in stored((table,)).items() if key[0] == table]
    assert spreads
    assert all((spread is not None) == (of == "all") for spread in spreads)


def test_points_of_figures_are_those_of_tables():
    tables = {"ResNet-50": "parts/table-7", "Downsampled": "parts/table-8", "Bounding-Box": "parts/table-9"}
    known, points = typed(), stored(COPIES)
    for (_, dataset, row, column), value in points.items():
        series, _, point = row.partition(": ")
        swept = "PGD lr 0.1 wd 0.0005" if point == "PGD" else point.replace("TRADES", "TRADES beta")
        if dataset == "part-imagenet":
            assert value == known[tables[series], dataset, swept, column]
        else:
            assert value == known["parts/table-1", dataset, series, column]
    assert len(points) > 100


def test_a_table_shows_what_stands_behind_plus_minus(tmp_path, capsys):
    from counterpart.cli import main

    assert main(["papers", "show", "pixel/table-8", "--runs", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "83.44 ± 0.19" in told
    assert "The paper's +- is over trainings" in told
    assert main(["papers", "show", "pixel/table-4", "--runs", str(tmp_path)]) == 0
    assert "±" not in capsys.readouterr().out
