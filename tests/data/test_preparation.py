"""Preparations as a whole: resumable, the same however made, damage named, splits that leak nothing."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from counterpart.data import cityscapes_parts, load_parts, parts_check, plans, preparation
from counterpart.data.drawn_splits import assign
from counterpart.data.folds import photographs_of
from counterpart.data.plans import Options
from counterpart.data.preparations import PREPARATIONS, find, prepare_named
from counterpart.errors import UserError

NAMES = sorted(PREPARATIONS)
TOTALS = {"part-imagenet": 110, "cityscapes": 30, "pascal-part": 50, "coco": 24, "labelme": 16, "masks": 16}
OF_A_PHOTOGRAPH = {"cityscapes": 3, "coco": 2}


@pytest.fixture(autouse=True)
def small_objects(monkeypatch):
    """The frames of the tests are small."""
    monkeypatch.setattr(cityscapes_parts, "MIN_AREA", 500)


@pytest.fixture
def source(tmp_path, originals):
    """Writes the source of a data set and returns its folder."""

    def write(name):
        root = tmp_path / "source"
        getattr(originals, name)(root)
        return root

    return write


def content(root):
    """Every file by its path."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def manifest(root):
    return [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_prepared_can_be_used(name, source, tmp_path):
    target = tmp_path / "target"
    done = prepare_named(name, source(name), target, Options(), workers=1)
    assert done.total == TOTALS[name]
    assert not (target / ".unfinished").exists()
    found = parts_check.check(target)
    assert found.problems == []
    assert found.unlabelled == []
    splits = load_parts(target, size=16)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [
        sum(done.counts[split].values()) for split in ("train", "val", "test")
    ]
    rows = manifest(target)
    assert len(rows) == done.total
    for row in rows:
        image, mask = target / row["path"], target / row["mask"]
        assert f"/{row['split']}/{row['class']}/" in row["path"]
        assert (tmp_path / "source" / row["source"]).is_file() or "n0" in row["source"]
        ids = np.array(Image.open(mask))
        assert ids.dtype == np.uint8
        counted = {
            f"{label} {part}": int((ids == number).sum())
            for label, parts in found.names.items()
            for part, number in parts.items()
            if (ids == number).any()
        }
        assert row["pixels"] == counted
        assert row["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_a_preparation_goes_on_where_it_was_stopped(name, source, tmp_path, monkeypatch):
    root = source(name)
    prepare_named(name, root, tmp_path / "whole", Options(), workers=1)
    plan = find(name).plan(root, Options())
    calls = []

    def stops(unit):
        calls.append(unit)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plan.extract(unit)

    target = tmp_path / "target"
    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(replace(plan, extract=stops), target, Options(), workers=1)
    assert not (target / "manifest.jsonl").exists()
    journal = target / ".unfinished" / "journal.jsonl"
    with journal.open("a") as file:  # a kill tore the last line
        file.write('{"unit": "half')
    counted = replace(plan, extract=lambda unit: calls.append(unit) or plan.extract(unit))
    done = preparation.prepare(counted, target, Options(), workers=1)
    assert len(calls) == len(plan.units) + 1  # the one that was interrupted was begun twice, no other
    assert content(target) == content(tmp_path / "whole")
    assert preparation.prepare(plan, target, Options(), workers=1) == done  # complete: nothing is done


def test_a_kill_while_files_move_is_survived(source, tmp_path, monkeypatch):
    root = source("pascal-part")
    prepare_named("pascal-part", root, tmp_path / "whole", Options(), workers=1)
    target = tmp_path / "target"
    moved = preparation._moved
    count = iter(range(1000))

    def stops(*arguments):
        if next(count) == 20:
            raise KeyboardInterrupt
        return moved(*arguments)

    monkeypatch.setattr(preparation, "_moved", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare_named("pascal-part", root, target, Options(), workers=1)
    monkeypatch.setattr(preparation, "_moved", moved)
    (target / ".manifest.jsonl.99999999").touch()  # which a killed process was writing
    prepare_named("pascal-part", root, target, Options(), workers=1)
    assert content(target) == content(tmp_path / "whole")
    assert not (target / ".manifest.jsonl.99999999").exists()


@pytest.mark.parametrize("damage", ["cut", "zeros", "gone"])
def test_what_a_loss_of_power_took_is_done_again(source, tmp_path, damage):
    """The journal may outlast the files that it names: these are not flushed one by one."""
    root, target = source("pascal-part"), tmp_path / "target"
    plan = find("pascal-part").plan(root, Options())
    preparation.prepare(plan, tmp_path / "whole", Options(), workers=1)
    calls = []

    def stops(unit):
        calls.append(unit)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return plan.extract(unit)

    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(replace(plan, extract=stops), target, Options(), workers=1)
    files = [
        path for path in sorted((target / preparation.STAGE).rglob("*")) if path.parent.name in plan.names
    ]
    if damage == "gone":
        files[0].unlink()
    else:
        files[0].write_bytes(b"" if damage == "cut" else bytes(files[0].stat().st_size))
    preparation.prepare(
        replace(plan, extract=lambda unit: calls.append(unit) or plan.extract(unit)), target, Options(), 1
    )
    assert len(calls) == len(plan.units) + 2  # the one that was interrupted, and the one that was lost
    assert content(target) == content(tmp_path / "whole")


def test_all_files_are_on_the_disk_before_the_manifest(source, tmp_path, monkeypatch):
    target, there = tmp_path / "target", []
    monkeypatch.setattr(preparation.os, "sync", lambda: there.append((target / "manifest.jsonl").exists()))
    prepare_named("pascal-part", source("pascal-part"), target, Options(), workers=1)
    assert there == [False]
    assert (target / "manifest.jsonl").exists()


def test_what_a_kill_behind_the_manifest_left_goes(source, tmp_path):
    root, target = source("pascal-part"), tmp_path / "target"
    prepare_named("pascal-part", root, target, Options(), workers=1)
    before = {path.name for path in target.iterdir()}
    (target / preparation.LOCK).touch()
    (target / preparation.STAGE).mkdir()
    prepare_named("pascal-part", root, target, Options(), workers=1)
    assert {path.name for path in target.iterdir()} == before


def test_processes_change_nothing_and_name_what_is_damaged(source, tmp_path):
    root, target = source("pascal-part"), tmp_path / "target"
    prepare_named("pascal-part", root, tmp_path / "whole", Options(), workers=1)
    path = root / "Annotations_Part" / "dog_03.mat"
    whole = path.read_bytes()
    path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"dog_03\.mat is damaged.* of 50 are done and stay"):
        prepare_named("pascal-part", root, target, Options(), workers=2)
    path.write_bytes(whole)
    prepare_named("pascal-part", root, target, Options(), workers=1)
    assert content(target) == content(tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("pascal-part", "Annotations_Part/bird_02.mat"),
        ("pascal-part", "JPEGImages/bird_02.jpg"),
        ("cityscapes", "gtFinePanopticParts/train/bochum/bochum_000001_000019_gtFinePanopticParts.tif"),
        ("cityscapes", "leftImg8bit/train/bochum/bochum_000001_000019_leftImg8bit.png"),
        ("part-imagenet", "JPEGImages/n00000001/n00000001_6.JPEG"),
    ],
)
def test_a_file_that_was_cut_off_is_named_and_what_was_done_stays(name, file, source, tmp_path):
    root, target = source(name), tmp_path / "target"
    path = root / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=path.name) as raised:
        prepare_named(name, root, target, Options(), workers=1)
    text = str(raised.value)
    assert "\n" not in text
    assert "are done and stay" in text
    assert not (target / "manifest.jsonl").exists()
    path.write_bytes(whole)
    prepare_named(name, root, target, Options(), workers=1)
    prepare_named(name, root, tmp_path / "whole", Options(), workers=1)
    assert content(target) == content(tmp_path / "whole")


@pytest.mark.parametrize("name", NAMES)
def test_images_that_are_missing_are_named_or_left_out(name, source, tmp_path):
    root = source(name)
    path = sorted(p for p in root.rglob("*") if p.suffix in (".jpg", ".JPEG") or "leftImg8bit.png" in p.name)[
        0
    ]
    path.unlink()
    with pytest.raises(
        UserError, match=r"1 (images|photographs) are annotated and not there, the first is"
    ) as raised:
        prepare_named(name, root, tmp_path / "target", Options(), workers=1)
    assert path.stem in str(raised.value)
    done = prepare_named(name, root, tmp_path / "target", Options(allow_missing=True), workers=1)
    assert done.total == TOTALS[name] - OF_A_PHOTOGRAPH.get(name, 1)
    assert "left out" in done.notes[0]


def test_a_target_that_holds_something_else_is_refused(source, tmp_path):
    root, target = source("cityscapes"), tmp_path / "target"
    prepare_named("cityscapes", root, target, Options(), workers=1)
    with pytest.raises(UserError, match=r"holds another preparation \(options: .*'seed': 0.* there"):
        prepare_named("cityscapes", root, target, Options(seed=1), workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").touch()
    with pytest.raises(UserError, match="mine is not empty"):
        prepare_named("cityscapes", root, tmp_path / "mine", Options(), workers=1)
    with pytest.raises(UserError, match="is the source"):
        prepare_named("cityscapes", root, root, Options(), workers=1)
    with pytest.raises(
        UserError, match=r"no folder\. What belongs there: counterpart data describe cityscapes"
    ):
        prepare_named("cityscapes", tmp_path / "gone", target, Options(), workers=1)
    with pytest.raises(UserError, match="--split city does not fit: pascal-part has sample, photograph"):
        prepare_named("pascal-part", root, target, Options(split="city"), workers=1)
    with pytest.raises(UserError, match="Did you mean 'cityscapes'"):
        prepare_named("cityscape", root, target, Options(), workers=1)


def test_the_published_shuffles_decide_the_split(source):
    """A second implementation: one stream of numpy's, class after class, first tenth val, next test."""
    root = source("pascal-part")
    plan = find("pascal-part").plan(root, Options())
    rows = [{"class": name.rsplit("_", 1)[0], "photograph": name} for name in plan.units]
    ours = assign(rows, plan, Options())
    state = np.random.RandomState(0)
    labels = np.array([row["class"] for row in rows])
    for label in np.unique(labels):
        idx = np.where(labels == label)[0]
        state.shuffle(idx)
        n = round(0.1 * len(idx))
        assert {ours[i] for i in idx[:n]} == {"val"}
        assert {ours[i] for i in idx[n : 2 * n]} == {"test"}
        assert {ours[i] for i in idx[2 * n :]} == {"train"}
    assert assign(rows, plan, Options(seed=1)) != ours


@pytest.mark.parametrize("split", ["photograph", "city"])
def test_groups_stay_together(split):
    plan = plans.Plan("x", {"a": {"p": 1}}, {}, lambda unit: None, [("a",)], int, 0)
    rows = [{"class": "a", "photograph": f"p{i // 3}", "city": f"c{i // 30}"} for i in range(900)]
    splits = assign(rows, plan, Options(split=split))
    where = {}
    for row, found in zip(rows, splits, strict=True):
        assert where.setdefault(row[split], found) == found
    sizes = Counter(splits)
    assert sizes["val"] == sizes["test"] == 90
    assert assign(rows, plan, Options(split=split)) == splits
    order = np.random.default_rng(0).permutation(900)  # the order of the rows means nothing
    mixed = assign([rows[i] for i in order], plan, Options(split=split))
    assert [splits[i] for i in order] == mixed


def test_drawn_splits_of_a_users_data_have_every_class_and_share_no_photograph():
    plan = plans.Plan("x", {}, {}, lambda unit: None, [], int, None, split="photograph")
    rows = [{"class": "ab"[i % 2], "photograph": f"p{i // 2}", "image": str(i)} for i in range(400)]
    rows += [{"class": "rare", "photograph": f"r{i}", "image": f"r{i}"} for i in range(3)]
    rows += [{"class": "rare", "photograph": "p7", "image": "r"}]
    splits = assign(rows, plan, Options())
    where = {}
    for row, split in zip(rows, splits, strict=True):
        assert where.setdefault(row["photograph"], split) == split
    counts = Counter((row["class"], split) for row, split in zip(rows, splits, strict=True))
    assert counts["rare", "val"] == counts["rare", "test"] == 1
    assert counts["rare", "train"] == 2
    for label in "ab":
        assert counts[label, "val"] == pytest.approx(20, abs=1)
        assert counts[label, "test"] == pytest.approx(20, abs=1)
    assert assign(rows, plan, Options(seed=1)) != splits
    order = np.random.default_rng(0).permutation(len(rows))
    assert assign([rows[i] for i in order], plan, Options()) == [splits[i] for i in order]
    two = [{"class": name[0], "photograph": name, "image": ""} for name in ("a0", "a1", "b0", "b1", "b2")]
    assert Counter(assign(two, plan, Options())) == {
        "train": 3,
        "test": 2,
    }  # "a" has none for val, so nothing has


def test_photographs_of_several_classes_leave_no_split_without_a_class():
    plan = plans.Plan("x", {}, {}, lambda unit: None, [], int, None, split="photograph")
    shown = {"p1": "ab", "p4": "a", "p6": "b"}
    rows = [
        {"class": label, "photograph": name, "image": ""}
        for name, labels in shown.items()
        for label in labels
    ]
    for seed in range(20):
        splits = assign(rows, plan, Options(seed=seed))
        there = {(row["class"], split) for row, split in zip(rows, splits, strict=True)}
        assert there == {(label, split) for label in "ab" for split in set(splits)}
        assert "test" in splits


def test_ids_that_come_twice_are_refused(source, tmp_path):
    root = source("part-imagenet")
    for split in ("train", "val"):
        path = root / f"{split}.json"
        tables = json.loads(path.read_text())
        if split == "train":
            first = tables["images"][0]
        else:
            old = tables["images"][0]["file_name"]
            tables["images"][0]["file_name"] = first["file_name"]
            path.write_text(json.dumps(tables))
            assert old != first["file_name"]
    with pytest.raises(UserError, match=r"n00000000_0 is in .*train\.json and again in .*val\.json"):
        prepare_named("part-imagenet", root, tmp_path / "target", Options(), workers=1)


def test_what_changed_since_it_was_prepared_is_named(source, tmp_path):
    target = tmp_path / "target"
    prepare_named("masks", source("masks"), target, Options(), workers=1)
    first, second = manifest(target)[:2]
    Image.open(target / second["mask"]).save(target / second["mask"], compress_level=0)  # the same ids
    before = (target / first["path"]).read_bytes()
    (target / first["path"]).write_bytes(before + b"\x00")  # behind the end of the image
    assert parts_check.check(target).problems == [
        f"{target / row[which]} has changed since it was prepared (its hash is not that of manifest.jsonl)."
        for row, which in ((first, "path"), (second, "mask"))
    ]


def test_a_manifest_with_another_word_is_refused(source, tmp_path):
    root, target = source("masks"), tmp_path / "target"
    prepare_named("masks", root, target, Options(), workers=1)
    file = target / "manifest.jsonl"
    file.write_text(file.read_text().replace('"split": "train"', '"split": "trail"', 1))
    for refused in (lambda: parts_check.check(target), lambda: photographs_of(target / "images", [])):
        with pytest.raises(UserError, match=r"manifest\.jsonl.*it does not fit its checksum"):
            refused()


def test_a_journal_with_a_damaged_end_is_not_taken_for_a_torn_one(source, tmp_path):
    target = tmp_path / "target"
    plan = find("masks").plan(source("masks"), Options())

    def stops(unit):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(replace(plan, extract=stops), target, Options(), workers=1)
    journal = target / ".unfinished" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UserError, match=r"journal\.jsonl.*is damaged"):
        preparation.prepare(plan, target, Options(), workers=1)
