"""A row of every experiment of both papers at smoke scale, on a CIFAR-10 of a few images in the official layout and on
drawn parts.
"""

import pickle

import numpy as np
import pytest
from PIL import Image

from counterpart import papers
from counterpart.cli import main
from counterpart.data.corruptions.weather import TEXTURES
from counterpart.papers import running

QUICK = ("pixel/table-1", "pixel/table-8", "parts/table-1", "parts/figure-10")  # of each kind, in a second


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Noise as images and as textures of frost; the runs, which tables share."""
    home, random = tmp_path_factory.mktemp("smoke"), np.random.default_rng(0)
    folder = home / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = {
            "data": random.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": [*range(10), *range(10)],
        }
        (folder / name).write_bytes(pickle.dumps(rows))
    for name in TEXTURES:
        Image.fromarray(random.integers(0, 256, (400, 400, 3), dtype=np.uint8)).save(home / name)
    return home


def row_of(experiment):
    """A row that many tables share, so that few are trained."""
    for recipe in ("part", "downsampled", "downsampled-clean"):
        for row in experiment.rows:
            if row.recipe == recipe and row.changes.keys() <= {"train"} and not row.images:
                return row.name
    return experiment.rows[-1].name


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in papers.EXPERIMENTS],
)
def test_an_experiment_runs_once_and_shows_every_column(name, home, monkeypatch, capsys):
    experiment = papers.find(name)
    dataset = "cifar10" if name.startswith("pixel/") else "synthetic-parts"
    row, columns = row_of(experiment), papers.columns(experiment, dataset)
    words = [name, "--dataset", dataset, "--scale", "smoke", "--runs", str(home / "runs")]
    run = ["papers", "run", *words, "--rows", row, "--data.root", str(home), "--corruptions.frost", str(home),
           "--device", "cpu", "--threads", "1"]  # fmt: skip
    assert main(run) == 0
    found = papers.measured(experiment, dataset, "smoke", home / "runs" / "papers")
    lacking = papers.absent(experiment, dataset, "smoke", home / "runs" / "papers")
    assert {*found, *lacking} == {(row, column) for column in columns}
    assert all(column.endswith(" averaged") for _, column in lacking)  # where no row averages
    for (_, column), [record] in found.items():
        if "right" in record.details:
            assert record.details["right"].count("1") == round(record.value * record.n)
            if "shift" not in str(columns[column]):  # by attacks, on the same images and weights
                natural = f"natural{column.removeprefix(papers.plain(column))}"
                assert record.value <= found[row, natural][0].value, column
    if experiment.draw is None:
        for job in ("train", "evaluate", "evaluate_corruptions"):  # would be called for whatever is missing
            monkeypatch.setattr(running.jobs, job, None)
        assert main(run) == 0
    shown = ""
    for width in ("80", "200"):
        capsys.readouterr()
        monkeypatch.setenv("COLUMNS", width)
        assert main(["papers", "show", *words]) == 0
        shown = capsys.readouterr().out
        assert "…" not in shown
    texts = (*columns, row, "scale smoke", *(["Picture:"] if experiment.draw else []))
    assert all(word in shown for text in texts for word in text.split())  # lines are broken between words
