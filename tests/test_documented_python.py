"""The Python of the README's first screen and of these pages of docs/ runs as it stands."""

import re
import sys
from pathlib import Path

import pytest
import torch

import counterpart
from counterpart.cli import main
from counterpart.models import create

ROOT = Path(__file__).parents[1]


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the pages take for granted: a model, a network, images and labels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    images = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, network = (create("wrn-10-1", 4, width=4, image_size=8) for _ in range(2))
    with torch.no_grad():
        labels = model.eval()(images).argmax(1)
    labels[:4] = torch.arange(4)
    yield {"model": model, "network": network, "images": images, "labels": labels}
    sys.modules.pop("additions", None)


def test_the_page_about_python(names, tmp_path):
    for block in blocks("docs/python.md"):
        exec(block, names)
    assert names["judged"]["worst case"].n == 40
    assert len(names["curve"]) == 2
    assert (tmp_path / "page.html").exists()
    assert names["kept"].folder == Path("runs/mine")
    assert len(names["audit"]) == 13
    assert names["seen"].attacked.shape == names["images"].shape
    assert names["exported"].checked.difference < 1e-5
    assert not names["again"].training
    assert names["hardened"] is names["run"].model
    assert {trial.settings["train.beta"] for trial in names["swept"].trials} == {"1", "6"}
    assert names["swept"].plot == Path("runs/betas/tradeoff.png")


def test_the_page_about_watching(names, capsys):
    for block in blocks("docs/watching.md"):
        exec(block, names)
    said = capsys.readouterr().out
    assert "runs/cifar10-at 0 " in said
    assert "None accuracy/worst case " in said
    assert "cifar10-at finished 1 1 " in said


@pytest.mark.slow
def test_calls_beside_those_of_other_libraries(names):
    names |= {"images": names["images"][:2], "labels": names["labels"][:2]}
    for block in blocks("docs/coming-from.md"):
        exec(block, names)
    assert names["judged"].n == 2
    assert names["nearest"].distances.shape == (2,)


def test_models_whose_answers_are_random(names):
    names["cp"] = counterpart
    (block,) = [block for block in blocks("docs/evaluation.md") if "class Noisy" in block]
    exec(block, names)
    assert all(0 < row.fresh["clean"] <= 10 for row in names["drawn"].rows if row.right)
    assert names["voted"].n == 40
    assert not names["fixed"].rows[0].fresh


@pytest.mark.slow
def test_the_first_screen_of_the_readme(names, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.index("    make test") < readme.index("```python") < readme.index("## ")
    few = {
        "train.epochs": 1,
        "train.batch_size": 20,
        "train.precision": "float32",
        "train.validation_n": None,
    }
    train, evaluate = counterpart.train, counterpart.evaluate

    def train_a_little(*given, changes, **options):
        return train(*given, changes={**changes, **few}, **options)

    monkeypatch.setattr(counterpart, "train", train_a_little)
    monkeypatch.setattr(counterpart, "evaluate", lambda *given, **options: evaluate(*given, n=2, **options))
    exec(blocks("README.md")[0], names)
    assert names["judged"].n == 2
    assert names["run"].finished


def test_additions_are_used_from_python_and_from_the_command_line(names, tmp_path, capsys):
    module, use, loop, table, row = blocks("docs/extending.md")
    assert module.startswith("# additions.py\n")
    (tmp_path / "additions.py").write_text(module)
    exec(use, names)
    assert names["judged"].keys() == ["clean", "FGSM", "additions:corner size 0.5", "worst case"]
    assert main(["evaluate", "runs/stripes", "--attacks", "fgsm,additions:corner"]) == 0
    assert "additions:corner runs your own code" in capsys.readouterr().err
    exec(loop, names)
    assert names["attacked"].images.shape == names["corners"].shape == names["images"].shape
    assert names["budget"].contains(names["attacked"].images, names["images"]).all()
    exec(table, names)
    assert main(["report", "runs/mine", "--table", "latex"]) == 0
    assert "additions:corner" in capsys.readouterr().out
    exec(row, names)
    assert names["row"].options[0].default == 1.0


def test_the_entry_points_name_what_the_page_defines():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    module = blocks("docs/extending.md")[0]
    named = re.findall(r'^[\w-]+ = "additions:(\w+)"$', page, flags=re.MULTILINE)
    assert len(named) == 4
    assert all(re.search(rf"^(def|class) {name}\b", module, flags=re.MULTILINE) for name in named)
