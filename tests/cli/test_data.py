"""counterpart data: what a user sees, on good folders and bad ones."""

import json

import numpy as np
import pytest
from PIL import Image

from counterpart.cli import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Contact sheets are written into the current folder."""
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def folder(tmp_path):
    """One image per class and split, with masks."""
    for split in ("train", "val", "test"):
        for name, part in (("cat", 1), ("dog", 2)):
            for kind, array in (
                ("images", np.full((9, 9, 3), 50, np.uint8)),
                ("parts", np.full((9, 9), part, np.uint8)),
            ):
                path = tmp_path / kind / split / name / "a.png"
                path.parent.mkdir(parents=True)
                Image.fromarray(array).save(path)
    (tmp_path / "parts.json").write_text(
        json.dumps({"parts": {"cat": {"head": 1}, "dog": {"head [left]": 2}}})
    )
    return tmp_path


def test_check_says_that_all_is_well(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "6 images, nothing to mend. Use it with --data.name parts --data.root" in printed
    assert "head [left] 3" in printed


def test_check_writes_a_sheet_and_never_into_the_folder_by_itself(folder, elsewhere, capsys, monkeypatch):
    assert main(["data", "check", str(folder)]) == 0
    assert [path.name for path in elsewhere.iterdir()] == [f"{folder.name}-sheet.png"]
    assert f"should: {folder.name}-sheet.png" in capsys.readouterr().out
    before = sorted(folder.rglob("*"))
    monkeypatch.chdir(folder / "images")
    assert main(["data", "check", ".."]) == 0
    assert sorted(folder.rglob("*")) == before
    assert (folder.parent / f"{folder.name}-sheet.png").is_file()
    assert main(["data", "check", str(folder), "--sheet", str(elsewhere / "mine.png")]) == 0
    with Image.open(elsewhere / "mine.png") as sheet:
        assert sheet.width > 1000
    assert main(["data", "check", str(folder), "--sheet", "/no/such/x.png"]) == 2
    assert "Could not write the contact sheet /no/such/x.png" in capsys.readouterr().err


def test_prepare_names_refused_annotations_and_where_all_of_them_stand(tmp_path, capsys):
    for label in ("cat", "dog"):
        for number in range(3):
            path = tmp_path / "source" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20)).save(path)
            bad = {"label": "ear", "points": [[1, 1]], "shape_type": "point"}
            good = {"label": "head", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
            size = {"imageHeight": 20, "imageWidth": 20}
            text = json.dumps({"shapes": [good, *4 * [bad]], "imagePath": f"{number}.png", **size})
            path.with_suffix(".json").write_text(text)
    words = [
        "data",
        "prepare",
        "labelme",
        "--source",
        str(tmp_path / "source"),
        "--target",
        str(tmp_path / "target"),
    ]
    assert main([*words, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "6 samples.\n" in printed
    assert printed.count("refused: ") == 20
    assert (
        f"... and 4 more; 24 annotations are refused and left out: {tmp_path / 'target' / 'refused.txt'}"
        in printed
    )
    assert "- Classes are the folders of the images: cat, dog" in printed
    assert f"counterpart data check {tmp_path / 'target'}" in printed


def test_check_names_what_is_wrong(folder, capsys):
    (folder / "parts" / "val" / "dog" / "a.png").write_bytes(b"")
    assert main(["data", "check", str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "problem: Cannot read the mask" in printed
    assert "val/dog/a.png" in printed
    assert "1 to mend before this folder can be used." in printed


def test_describe_says_what_is_needed_and_under_which_licence(capsys):
    assert main(["data", "describe"]) == 0
    listed = capsys.readouterr().out
    for name, words in (
        ("part-imagenet", ("24,095", "train.json", "non-commercial")),
        ("cityscapes", ("29,728", "gtFinePanopticParts_trainval.zip", "Apache-2.0")),
        ("pascal-part", ("3,662", "VOCtrainval_03-May-2010.tar", "Licence")),
        ("coco", ("CVAT", "parent_id", "--objects")),
        ("labelme", ("DIR/car/7.json", "group_id")),
        ("masks", ("labelmap.txt", "--names FILE")),
    ):
        assert name in listed
        assert main(["data", "describe", name]) == 0
        printed = capsys.readouterr().out
        assert all(word in printed for word in words)
        assert f"counterpart data prepare {name} --source DIR --target DIR" in printed


def test_prepare_says_what_it_made(tmp_path, capsys):
    scipy_io = pytest.importorskip("scipy.io")
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in ("JPEGImages", "Annotations_Part"):
        (source / folder).mkdir(parents=True)
    parts = np.empty((1, 1), dtype=[("part_name", object), ("mask", object)])
    parts[0, 0] = ("head", np.ones((9, 9), np.uint8))
    objects = np.empty((1, 1), dtype=[("class", object), ("mask", object), ("parts", object)])
    objects[0, 0] = ("dog", np.ones((9, 9), np.uint8), parts)
    anno = np.empty((1, 1), dtype=[("objects", object)])
    anno[0, 0] = (objects,)
    for name in ("a", "b"):
        Image.new("RGB", (9, 9)).save(source / "JPEGImages" / f"{name}.jpg")
        scipy_io.savemat(source / "Annotations_Part" / f"{name}.mat", {"anno": anno})
    words = [
        "data",
        "prepare",
        "pascal-part",
        "--source",
        str(source),
        "--target",
        str(target),
        "--workers",
        "1",
    ]
    for _ in range(2):  # the second time it is there
        assert main(words) == 0
        printed = capsys.readouterr().out
        assert "2 samples; the paper has 3,662." in printed
        assert "train        2  dog 2" in printed
        assert "- val has no aeroplane, bird, car, cat, dog" in printed
    assert main([*words, "--seed", "1"]) == 2
    assert "holds another preparation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "counterpart data check needs a folder."),
        (["check", "/no/such"], "/no/such is no folder."),
        (["prepare"], "needs a data set, such as part-imagenet"),
        (["prepare", "pascal-part"], "needs --source DIR"),
        (["prepare", "pascal-part", "--source", "."], "needs --target DIR"),
        (["prepare", "pascl", "--source", ".", "--target", "x"], "Did you mean 'pascal-part'?"),
        (["describe", "cityscape"], "Did you mean 'cityscapes'?"),
        (["check", ".", "--classes", "folder"], "--classes has no effect on counterpart data check."),
        (
            ["prepare", "coco", "--source", ".", "--target", "x", "--sheet", "y"],
            "--sheet has no effect on counterpart",
        ),
        (
            ["prepare", "coco", "--source", ".", "--target", "x", "--published"],
            "--published has no effect on coco",
        ),
        (
            ["prepare", "coco", "--source", ".", "--target", "x", "--split", "city"],
            "coco has source, photograph",
        ),
        (
            ["prepare", "pascal-part", "--source", ".", "--target", "x", "--largest"],
            "--largest has no effect on",
        ),
        (
            ["prepare", "coco", "--source", ".", "--target", "x", "--classes", "objct"],
            "Did you mean 'object'?",
        ),
        (["check", ".", "--published"], "--published has no effect on counterpart data check."),
        (["describe", "--target", "x"], "--target has no effect on counterpart data describe."),
        (["prepare", "pascal-part", "--workers", "0"], "--workers 0 must be at least 1."),
        (["prepare", "pascal-part", "--seed", "-1"], "--seed -1 must be 0 or more."),
        (["chek", "."], "invalid choice: 'chek'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(words, said, capsys):
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
