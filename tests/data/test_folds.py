"""Cross-validation over photographs: every image is judged once, and no photograph is on two sides."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart.data import load_folder, load_parts
from counterpart.data.folds import deal
from counterpart.data.preparation import Options, Plan, Sample, prepare
from counterpart.errors import UserError
from counterpart.numerals import read_fold

PREPARED = {"p": {"a": 1}, "q": {"b": 2}}


def paint(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(path)


@pytest.fixture
def root(tmp_path):
    """66 images of 36 photographs in three splits: all show a bed, every second a cat, every third a dog."""
    value = 0
    for photograph in range(36):
        split = ("train", "train", "val", "test")[photograph // 9]
        for name, every in (("cat", 2), ("dog", 3), ("bed", 1)):
            if photograph % every == 0:
                paint(tmp_path / split / name / f"street_{photograph:03d}__{name}.png", value)
                value += 1
    return tmp_path


def splits_of(data):
    return data.train, data.validation, data.test


def photographs(images):
    return {name.rpartition("/")[2].rpartition("__")[0] for name in images.names}


def test_every_image_is_judged_in_exactly_one_fold_and_no_photograph_is_on_two_sides(root):
    judged = Counter()
    for number in range(1, 6):
        data = load_folder(root, fold=f"{number}/5", validation=0.25)
        train, held, test = splits_of(data)
        everything = [name for images in splits_of(data) for name in images.names]
        assert len(everything) == len(set(everything)) == 66
        assert not photographs(train) & photographs(held)
        assert not photographs(train) & photographs(test)
        assert not photographs(held) & photographs(test)
        assert [images.split for images in splits_of(data)] == ["train", "validation", "test"]
        judged.update(test.names)
    assert len(judged) == 66
    assert set(judged.values()) == {1}


def test_folds_hold_the_same_share_of_every_class_and_validation_its_share_of_the_rest(root):
    for number in range(1, 4):
        data = load_folder(root, fold=f"{number}/3", validation=0.25)
        assert (data.test.labels.bincount() - torch.tensor([12, 6, 4])).abs().max() <= 1
        assert abs(len(data.validation) - 11) <= 1
        assert (data.validation.labels.bincount() - torch.tensor([6, 3, 2])).abs().max() <= 1


def test_a_fold_depends_on_names_and_not_on_the_split_folders(root):
    before = load_folder(root, fold="2/5")
    for split in ("test", "val"):
        for folder in (root / split).iterdir():
            for file in folder.iterdir():
                shutil.move(file, root / "train" / folder.name / file.name)
        shutil.rmtree(root / split)
    after = load_folder(root, fold="2/5")
    for old, new in zip(splits_of(before), splits_of(after), strict=True):
        assert {n.partition("/")[2] for n in old.names} == {n.partition("/")[2] for n in new.names}


def test_a_sample_has_one_index_in_all_folds_and_its_own_pixels(root):
    known = {}
    for number in (1, 2):
        for images in splits_of(load_folder(root, fold=f"{number}/2")):
            for name, index, image in zip(images.names, images.index.tolist(), images.pixels, strict=True):
                assert known.setdefault(index, (name, int(image[0, 0, 0]))) == (name, int(image[0, 0, 0]))
                with Image.open(root / name) as file:
                    assert file.getpixel((0, 0))[0] == int(image[0, 0, 0])
    assert len(known) == 66


def test_the_fingerprint_and_the_note_say_the_fold(root):
    plain, first, second = (load_folder(root, fold=fold) for fold in (None, "1/5", "2/5"))
    again = load_folder(root, fold="1/5")
    assert len({data.test.fingerprint for data in (plain, first, second)}) == 3
    assert again.test.fingerprint == first.train.fingerprint == first.test.fingerprint
    sizes = ", ".join(f"{len(images)} for {images.split}" for images in splits_of(first))
    assert first.notes == (
        "data.fold 1/5: 66 images of 36 photographs, which are told by names (what stands before '__', or each file by "
        f"itself); {sizes}.",
    )
    assert plain.notes == ()


def test_files_without_the_separator_are_photographs_of_their_own(tmp_path):
    for split, name, file in (
        ("train", "cat", "a_1.png"),
        ("train", "cat", "a_2.png"),
        ("test", "cat", "a_1.png"),
        ("train", "cat", "__x.png"),
        ("train", "dog", "a_1.png"),
        ("test", "dog", "b__1__2.png"),
        ("test", "dog", "b__1__3.png"),
        ("test", "dog", "b__2__3.png"),
    ):
        paint(tmp_path / split / name / file)
    (note,) = load_folder(tmp_path, fold="1/2").notes
    assert "8 images of 7 photographs" in note


def source_of(photograph):
    for label in ("p", "q"):
        for piece in range(2):
            image = np.full((4, 4, 3), photograph, dtype=np.uint8)
            mask = np.full((4, 4), 1 if label == "p" else 2, dtype=np.uint8)
            yield Sample(f"{piece}x{photograph}", label, f"street/{photograph}.jpg", image, mask)


def extract(photograph):
    from counterpart.data.preparation import Extracted

    return Extracted([*source_of(photograph)])


def test_a_prepared_folder_tells_photographs_by_its_manifest(tmp_path):
    plan = Plan(
        "tiny", PREPARED, {f"{i}": i for i in range(10)}, extract, [("p",), ("q",)], round, 40
    )  # fmt: skip
    prepare(plan, tmp_path / "set", Options(), workers=1)
    data = load_parts(tmp_path / "set", fold="2/5")
    assert (
        f"40 images of 10 photographs, which are told by {tmp_path / 'set' / 'manifest.jsonl'};"
        in data.notes[0]
    )
    sides = [{name.rpartition("x")[2] for name in images.names} for images in splits_of(data)]
    assert sum(map(len, sides)) == 10
    assert len(data.test) == 8
    assert all(bool(images.parts.there.all()) for images in splits_of(data))
    # the same images without their parts are dealt alike
    bare = load_folder(tmp_path / "set" / "images", fold="2/5")
    assert bare.test.names == data.test.names
    assert bare.validation.names == data.validation.names


def test_a_damaged_manifest_is_refused(tmp_path):
    for i in range(6):
        paint(tmp_path / "train" / "cat" / f"{i}.png")
    manifest = tmp_path / "manifest.jsonl"
    for content in ('{"path": "x", "source": "y"}\n{"pat\n', "[1]\n"):
        manifest.write_text(content)
        with pytest.raises(
            UserError, match=r"manifest\.jsonl, line [12] is damaged.*counterpart data prepare"
        ):
            load_folder(tmp_path, fold="1/2")
    manifest.write_text(json.dumps({"path": "train/cat/0.png", "source": "y", "other": None}) + "\n")
    assert "and, where that is silent, names" in load_folder(tmp_path, fold="1/2").notes[0]


def test_without_validation_everything_outside_the_fold_is_learned_from(root):
    data = load_folder(root, fold="2/5", validation=0)
    assert len(data.validation) == 0
    assert len(data.train) + len(data.test) == 66
    assert data.test.names == load_folder(root, fold="2/5").test.names


def test_too_few_photographs_are_refused(tmp_path):
    for i in range(4):
        paint(tmp_path / "train" / "cat" / f"a__{i}.png")
        paint(tmp_path / "train" / "cat" / f"{i % 2}.png")
    with pytest.raises(
        UserError,
        match=r"data\.fold 1/4 needs 4 photographs at least, 2 of them outside the fold, and folder has 3 \(told by",
    ):
        load_folder(tmp_path, fold="1/4")
    for fold in ("1/2", "2/2"):  # of three photographs, one of which shows as many images as the others
        data = load_folder(tmp_path, fold=fold, validation=0)
        assert len(data.train) > 0
    with pytest.raises(UserError, match=r"2 of them outside the fold"):
        load_folder(tmp_path, fold="2/2")
    for share in (0.01, 0.99):
        data = load_folder(tmp_path, fold="1/3", validation=share)
        assert min(map(len, splits_of(data))) > 0


def test_no_pile_stays_empty_while_there_are_groups_enough():
    groups = {f"g{i}": Counter({"a": 50} if i == 0 else {"abc"[i % 3]: 1}) for i in range(7)}
    dealt, order = deal(groups, [1 / 7] * 7)
    assert sorted(dealt.values()) == list(range(7))
    assert order[0] == "g0"


@pytest.mark.parametrize("text", ["0/5", "6/5", "1/1", "5", "1-5", "a/b", "-1/5", "1/5/6"])
def test_what_is_no_fold_is_refused(text):
    with pytest.raises(ValueError, match=f"a fold is K/N, such as 1/5 for the first of five, and not {text}"):
        read_fold(text)


def test_a_fold_is_read():
    assert read_fold(" 2 / 10 ") == (2, 10)
