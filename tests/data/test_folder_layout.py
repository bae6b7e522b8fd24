"""What lies in a folder: splits by any common name, loops, and what systems leave behind."""

import pytest
from PIL import Image

from counterpart.data import load_folder
from counterpart.data.folder_layout import image_files, split_of
from counterpart.errors import UserError


def fill(root, counts, first=0):
    """``counts`` images per class, each with its own value."""
    value = first
    for name, count in counts.items():
        for i in range(count):
            path = root / name / f"{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (value, value, value)).save(path)
            value += 1


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("training", "validation", "testing"),
        ("Training", "dev", "eval"),
    ],
)
def test_a_split_has_any_common_name(tmp_path, train, validation, test):
    fill(tmp_path / train, {"a": 4, "b": 4})
    fill(tmp_path / validation, {"a": 1, "b": 2}, first=100)
    fill(tmp_path / test, {"a": 2, "b": 1}, first=200)
    splits = load_folder(tmp_path)
    assert [s.classes for s in (splits.train, splits.test)] == [("a", "b")] * 2
    assert [s.split for s in (splits.train, splits.validation, splits.test)] == [
        "train",
        "validation",
        "test",
    ]
    assert splits.train.pixels[:, 0, 0, 0].tolist() == list(range(8))
    assert splits.validation.pixels[:, 0, 0, 0].tolist() == [100, 101, 102]
    assert splits.test.pixels[:, 0, 0, 0].tolist() == [200, 201, 202]


def test_other_names_mean_no_split():
    assert [split_of(name) for name in ("trains", "val2", "cat", "tests", "")] == [None] * 5


def test_a_folder_beside_the_splits_is_refused(tmp_path):
    fill(tmp_path / "train", {"a": 4, "b": 4})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    fill(tmp_path / "holdout", {"a": 2, "b": 2})
    with pytest.raises(UserError, match=r"split train and beside it holdout, .*val, valid, validation, dev;"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("one", "other"), [("val", "valid"), ("Train", "train"), ("test", "eval"), ("dev", "Validation")]
)
def test_two_folders_of_one_split_are_refused(tmp_path, one, other):
    for name in {"train", "test", one, other}:
        fill(tmp_path / name, {"a": 2, "b": 2})
    first, second = sorted((one, other))
    with pytest.raises(UserError, match=f"both {first} and {second}, which mean the same split"):
        load_folder(tmp_path)


def test_a_folder_linked_into_itself_does_not_multiply_images(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    plain = load_folder(tmp_path)
    (tmp_path / "train" / "a" / "aa").symlink_to(tmp_path / "train" / "a")
    (tmp_path / "train" / "a" / "up").symlink_to(tmp_path / "train")
    (tmp_path / "train" / "again").symlink_to(tmp_path / "train")
    (tmp_path / "here").symlink_to(tmp_path)
    looped = load_folder(tmp_path)
    assert len(looped.train) + len(looped.validation) == 6
    assert looped.train.classes == ("a", "b")
    assert looped.train.names == plain.train.names
    assert looped.train.fingerprint == plain.train.fingerprint


def test_a_linked_folder_is_followed_once(tmp_path):
    fill(tmp_path / "elsewhere", {"more": 2})
    fill(tmp_path / "set", {"a": 3})
    for name in ("0", "link"):
        (tmp_path / "set" / "a" / name).symlink_to(tmp_path / "elsewhere" / "more")
    (tmp_path / "elsewhere" / "more" / "back").symlink_to(tmp_path / "set" / "a")
    names = [
        path.relative_to(tmp_path / "set" / "a").as_posix() for path in image_files(tmp_path / "set" / "a")
    ]
    assert names == ["0/00.png", "0/01.png", "00.png", "01.png", "02.png"]


def test_what_systems_leave_behind_is_no_class_and_no_split(tmp_path):
    fill(tmp_path / "train", {"a": 3, "b": 3})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    expected = load_folder(tmp_path).train.fingerprint
    for folder in (tmp_path, tmp_path / "train", tmp_path / "train" / "a"):
        fill(folder, {"__MACOSX": 1, ".Trashes": 1, "@eaDir": 1})
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).touch()
    splits = load_folder(tmp_path)
    assert splits.train.classes == ("a", "b")
    assert splits.train.fingerprint == expected
