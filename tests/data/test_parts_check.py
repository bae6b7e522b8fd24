"""The check of a folder: it counts what is there, and goes on after everything that is wrong."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from counterpart.data import load_parts
from counterpart.data.parts_check import check
from counterpart.data.parts_folder import read_table
from counterpart.errors import UserError


def test_counts_of_a_good_folder(parts_root):
    found = check(parts_root)
    assert found.images == {split: {"cat": 4, "dog": 4} for split in ("train", "validation", "test")}
    assert found.shown == {("cat", "head"): 12, ("cat", "body"): 12, ("dog", "head"): 9}
    assert found.problems == []
    assert [path.name for path in found.unlabelled] == ["3.png"] * 3
    assert found.notes == [
        f"3 images have no mask: nobody annotated their parts; the first is {found.unlabelled[0]}"
    ]


def test_every_problem_is_found_and_named(parts_root):
    masks, images = parts_root / "parts" / "train", parts_root / "images" / "train"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(masks / "cat" / "0.png")
    Image.fromarray(np.full((10, 12), 9, np.uint8)).save(masks / "cat" / "1.png")
    (masks / "cat" / "2.png").write_bytes(b"broken")
    (images / "cat" / "3.png").write_bytes(b"broken")
    Image.new("RGB", (12, 10)).save(masks / "dog" / "0.png")
    Image.new("RGB", (12, 10)).save(images / "dog" / "1.jpg")
    found = check(parts_root)
    for words in (
        "cat/0.png is 5 x 5 and its image", "cat/1.png holds 9", "Cannot read the mask", "Cannot read the image",
        "dog/0.png has mode RGB", "1.jpg and ",
    ):  # fmt: skip
        assert len([line for line in found.problems if words in line]) == 1, words
    assert len(found.problems) == 6
    with pytest.raises(UserError):
        load_parts(parts_root)


def test_what_one_should_know_is_noted(parts_root):
    masks = parts_root / "parts" / "test"
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(masks / "cat" / "0.png")
    Image.fromarray(np.full((10, 12), 3, np.uint8)).save(masks / "cat" / "1.png")
    Image.new("RGB", (20, 20)).save(parts_root / "images" / "test" / "dog" / "3.png")
    table = {"parts": {"cat": {"head": 1, "body": 2, "tail": 4}, "dog": {"head": 3}}}
    (parts_root / "parts.json").write_text(json.dumps(table))
    found = check(parts_root)
    assert found.problems == []
    notes = "\n".join(found.notes)
    for words in (
        "1 masks are all background; the first is", "1 masks show parts of other classes alone",
        "no image of cat shows its part 'tail'",
        "images have 2 sizes: --data.size PIXELS",
    ):  # fmt: skip
        assert words in notes
    load_parts(parts_root, size=8)


def test_a_class_without_parts_or_folder(parts_root):
    table = {"classes": ["cat", "cow", "dog"], "parts": {"cat": {"a": 1, "b": 2, "c": 3}}}
    (parts_root / "parts.json").write_text(json.dumps(table))
    found = check(parts_root)
    assert "class dog has no parts" in found.notes
    assert len([line for line in found.problems if "class 'cow' is in parts.json and not in" in line]) == 3


def test_greyscale_and_cmyk_images_are_read(parts_root):
    images = parts_root / "images" / "train" / "cat"
    Image.new("L", (12, 10), 7).save(images / "0.png")
    (images / "1.png").unlink()
    Image.new("CMYK", (12, 10)).save(images / "1.jpg")
    assert check(parts_root).problems == []


def test_masks_that_fit_no_image_are_refused_by_check_and_training(parts_root):
    masks = parts_root / "parts" / "train" / "cat"
    for i in range(4):
        (masks / f"{i}.png").rename(masks / f"{i}_mask.png")
    words = (
        r"4 of the 21 masks in .* belong to no image, .*0_mask\.png: they look like x_mask\.png, and the mask"
    )
    with pytest.raises(UserError, match=words):
        load_parts(parts_root)
    (problem,) = check(parts_root).problems
    with pytest.raises(UserError) as raised:
        load_parts(parts_root)
    assert str(raised.value) == problem


def test_one_lonely_mask_is_refused_and_notes_are_passed_over(parts_root):
    masks = parts_root / "parts" / "train"
    (masks / "readme.txt").touch()
    (masks / ".DS_Store").touch()
    (masks / "Thumbs.db").touch()
    assert check(parts_root).problems == []
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(masks / "cat" / "lonely.png")
    (problem,) = check(parts_root).problems
    assert "1 of the 22 masks" in problem
    assert "they look like" not in problem
    assert f"({parts_root / 'parts' / 'test' / 'cat' / '0.png'})" in problem


def test_a_missing_and_an_empty_folder_of_masks(parts_root):
    shutil.rmtree(parts_root / "parts")
    for words in ("parts is missing: expected files such as", "parts holds no masks: expected files such as"):
        with pytest.raises(UserError, match=words):
            load_parts(parts_root)
        assert any(words in line for line in check(parts_root).problems)
        (parts_root / "parts").mkdir(exist_ok=True)


def test_a_byte_order_mark_in_the_table(parts_root):
    table = parts_root / "parts.json"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert read_table(parts_root) == {"cat": {"head": 1, "body": 2}, "dog": {"head": 3}}


def test_a_table_nested_without_end(parts_root):
    (parts_root / "parts.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"Cannot read .*parts\.json: its brackets are nested too deeply"):
        read_table(parts_root)
