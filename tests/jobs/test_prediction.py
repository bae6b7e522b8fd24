"""Predictions of folders of several runs: an answer of each, and of their mean."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import counterpart as cp
from counterpart import jobs
from counterpart.cli import main
from counterpart.errors import UserError

from .conftest import trained


@pytest.fixture(scope="module")
def group(master, tmp_path_factory):
    """A folder of two runs whose answers differ."""
    folder = tmp_path_factory.mktemp("group") / "both"
    shutil.copytree(master.path, folder / "seed-0")
    trained(folder, "seed-1", seed=1, limit=60)
    return folder


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(random.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def pixels_of(folder):
    read = [np.array(Image.open(file)) for file in sorted(folder.iterdir())]
    return torch.from_numpy(np.stack(read))[:, None] / 255


def test_each_run_answers_and_so_does_their_mean(group, photographs, tmp_path, capsys):
    images = pixels_of(photographs)
    with torch.no_grad():
        first, second = (cp.load(group / f"seed-{seed}")(images).softmax(1) for seed in (0, 1))
    expected = [row.max(dim=1) for row in (first, second, (first + second) / 2)]
    answers = jobs.predict(str(group), [photographs], "cpu")
    assert [answer.run for answer in answers] == ["seed-0", "seed-1", "mean"] * 3
    assert [answer.file.name for answer in answers] == [f"{number // 3}.png" for number in range(9)]
    assert [answer.label for answer in answers] == [
        str(int(each.indices[number])) for number in range(3) for each in expected
    ]
    torch.testing.assert_close(
        torch.tensor([answer.probability for answer in answers]),
        torch.stack([each.values for each in expected], dim=1).flatten(),
    )
    in_python = cp.predict(group, images)
    assert [(answer.run, answer.label) for answer in in_python] == [
        (answer.run, answer.label) for answer in answers
    ]
    table = tmp_path / "table.csv"
    assert main(["predict", str(group), str(photographs), "--csv", str(table)]) == 0
    assert capsys.readouterr().out.count("(mean)") == 3
    with table.open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["seed-0", "seed-1", "mean"] * 3


def test_maps_of_each_run_lie_apart(group, photographs, tmp_path):
    maps = tmp_path / "maps"
    assert main(["predict", str(group), str(photographs), "--maps", str(maps)]) == 0
    names = sorted(path.relative_to(maps).as_posix() for path in maps.rglob("*.png"))
    assert names == [f"seed-{seed}/000{number + 1}-{number}.png" for seed in (0, 1) for number in range(3)]


def test_runs_of_other_classes_have_no_mean(group, photographs, monkeypatch):
    from counterpart.jobs import named_models

    real = named_models.load_run

    def renamed(run, which):
        model, about = real(run, which)
        return model, {**about, "classes": [f"{run.path.name} {name}" for name in about["classes"]]}

    monkeypatch.setattr(named_models, "load_run", renamed)
    with pytest.raises(UserError, match=r"runs of other classes or sizes .*: name one of them"):
        jobs.predict(str(group), [photographs])


def test_maps_need_no_attack_and_open_the_model_once(master, photographs, tmp_path, monkeypatch):
    from counterpart.api import explanation
    from counterpart.jobs import named_models

    opened, real = [], named_models.load_run
    monkeypatch.setattr(named_models, "load_run", lambda *given: opened.append(given) or real(*given))

    def attack(*given, **named):
        raise AssertionError("nothing is attacked")

    monkeypatch.setattr(explanation, "pgd", attack)
    assert main(["predict", str(master.path), str(photographs), "--maps", str(tmp_path / "maps")]) == 0
    assert len(opened) == 1
    assert len(list((tmp_path / "maps").iterdir())) == 3
