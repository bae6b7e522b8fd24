"""Names from people and from data: within the folder of runs, and never obeyed by a terminal, a table or a page."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from counterpart.cli import main
from counterpart.config import resolve
from counterpart.errors import UserError

EVIL = "=cat\x1b]0;owned\x07\x1b[2J[red]\u202e<b>"
OUTSIDE = (
    "..", ".", "a/..", "a/../b", "a/./b", "../x", "../../x", "/tmp/x", "\\x", "a\\..\\b", "..\\x", "", "/", "//x",
    "a\x00b", "a\nb", "a\x1b[2J", "a" * 201,
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_stays_within_the_folder_of_runs(name, tmp_path):
    with pytest.raises(UserError) as refused:
        resolve({"name": name, "runs": str(tmp_path)})
    assert "\n" not in str(refused.value)


def test_the_length_of_a_name_is_that_in_bytes():
    with pytest.raises(UserError, match="name takes 202 bytes, one for each plain letter: use at most 200"):
        resolve({"name": "é" * 101})
    assert resolve({"name": "é" * 100}).name == "é" * 100


@pytest.mark.parametrize(
    "words", [["--name", "../../x"], ["--name", "/tmp/x", "--seeds", "0,1"], ["--name=."]]
)
def test_on_the_command_line(words, tmp_path, monkeypatch, capsys):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    assert main(["train", "digits/at", *words]) == 2
    assert "names no folder within the folder of runs: use --runs for another one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["a"]


def test_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("base: digits/at\nname: ../x\n")
    assert main(["train", "mine.yaml"]) == 2
    assert "names no folder within" in capsys.readouterr().err
    assert main(["sweep", "mine.yaml", "--space", "trades-beta"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.fixture
def images(tmp_path):
    """A folder with two classes, one of an evil name, and images of evil names."""
    for split, count in (("train", 20), ("test", 6)):
        for label, shade in ((EVIL.replace("/", ""), 40), ("dog", 200)):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8, 3), shade + number, np.uint8)).save(
                    folder / f"{number}\x1b[2J.png"
                )
    return tmp_path / "images"


def test_names_of_files_and_classes_are_shown_and_never_obeyed(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny = [
        "--data.name", "folder", "--data.root", str(images), "--data.size", "8", "--model.name", "wrn-10-1",
        "--model.width", "2", "--train.epochs", "1", "--train.batch-size", "8", "--attack.steps", "1", "--device",
        "cpu", "--threads", "1", "--train.validation-steps", "1",
    ]  # fmt: skip
    assert main(["train", "cifar10/at", *tiny, "--name", "x[red]$^a"]) == 0
    run = "runs/x[red]$^a"
    assert main(["evaluate", run, "--attacks", "[{steps: 1}]", "--n", "8"]) == 0
    files = sorted((images / "test").rglob("*.png"))
    assert main(["predict", run, *map(str, files), "--csv", "out.csv"]) == 0
    assert main(["predict", run, str(images / "missing\x1b[2J.png")]) == 2
    assert main(["data", "check", str(images)]) == 2
    assert main(["report", run, "--output", "page.html"]) == 0
    printed = capsys.readouterr()
    for written in (printed.out, printed.err):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", written)
    assert "=cat\\x1b]0;owned\\x07\\x1b[2J[red]\\u202e<b>" in printed.out
    assert "missing\\x1b[2J.png" in printed.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "\u202e&lt;b&gt;" in page
    assert "\u202e<b>" not in page
    [table] = (tmp_path / run / "evaluations").glob("*/images.csv")
    for file, begins in ((tmp_path / "out.csv", str(images)), (table, "'=cat\\x1b")):
        with file.open(newline="", encoding="utf-8") as opened:
            cells = [cell for row in csv.reader(opened) for cell in row]
        assert any(cell.startswith(begins) for cell in cells)
        assert not any(cell.startswith("=") or "\x1b" in cell for cell in cells)


@pytest.mark.parametrize(
    ("path_of_image", "said"),
    [(None, "'../../x/head'"), ("../../../etc/passwd", "passwd")],
)
def test_a_group_of_annotations_makes_no_folder_elsewhere(tmp_path, capsys, path_of_image, said):
    for number in range(3):
        path = tmp_path / "source" / "in" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
        shapes = [
            {"label": "../../x/head", "points": [[1, 1], [18, 18]], "shape_type": "rectangle"},
            {"label": "ear", "points": [[4, 4], [12, 12]], "shape_type": "rectangle"},
        ]
        about = {
            "shapes": shapes, "imagePath": path_of_image or path.name, "imageHeight": 20, "imageWidth": 20,
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(about))
    before = {path for path in tmp_path.rglob("*")}
    target = tmp_path / "made" / "target"
    words = ["data", "prepare", "labelme", "--source", str(tmp_path / "source"), "--target", str(target)]
    code = main([*words, "--workers", "1", "--classes", "object", "--objects", "../../x/head"])
    printed = "".join(capsys.readouterr())
    assert (code, said in printed) == (2, True), printed
    made = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "made")}
    assert made == before
