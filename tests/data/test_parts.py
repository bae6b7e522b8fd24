"""Images with part masks: layouts, modes, sizes, damage, and reading on demand."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart.data import Augmentation, batches, folder, load_parts
from counterpart.data.decoding import decode
from counterpart.data.parts import decode_mask, mask_ids, part_names
from counterpart.errors import UserError

CPU = torch.device("cpu")


def save(path, array, **arguments):
    Image.fromarray(array).save(path, **arguments)


def test_each_image_gets_its_mask(parts_root):
    splits = load_parts(parts_root)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [8, 8, 8]
    train = splits.train
    assert train.name == "parts"
    assert train.classes == ("cat", "dog")
    assert train.parts.names == {"cat": {"head": 1, "body": 2}, "dog": {"head": 3}}
    assert train.parts.count == 3
    assert train.parts.there.tolist() == [True] * 7 + [False]
    masks = train.read_parts(torch.arange(8))
    assert masks.dtype == torch.int64
    assert [mask.unique().tolist() for mask in masks] == [[0, 1, 2]] * 4 + [[0, 3]] * 3 + [[0]]
    assert (masks[2] == 1).nonzero().tolist() == [[y, x] for y in (1, 2, 3) for x in (2, 3, 4, 5)]


def test_batches_carry_parts(parts_root):
    train = load_parts(parts_root).train
    order = torch.tensor([7, 0, 5])
    (batch,) = batches(train, batch_size=3, device=CPU, order=order)
    assert torch.equal(batch.parts, train.read_parts(order))
    assert batch.has_parts.tolist() == [False, True, True]
    (moved,) = batches(train, batch_size=3, device=CPU, order=order, augmentation=Augmentation(2))
    assert moved.has_parts.tolist() == [False, True, True]
    assert not torch.equal(moved.parts, batch.parts)


@pytest.mark.parametrize("size", [None, 8])
def test_masks_read_on_demand_are_the_same(parts_root, monkeypatch, size):
    in_memory = load_parts(parts_root, size=size)
    monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 100)
    lazy = load_parts(parts_root, size=size)
    assert lazy.train.parts.masks is None
    assert lazy.train.fingerprint == in_memory.train.fingerprint
    order = torch.tensor([3, 7, 1])
    assert torch.equal(lazy.train.read_parts(order), in_memory.train.read_parts(order))
    few = (s.train.subset(order).subset(torch.tensor([2, 1])) for s in (lazy, in_memory))
    pairs = zip(*(batches(s, batch_size=2, device=CPU) for s in few), strict=True)
    for ours, theirs in pairs:
        assert torch.equal(ours.parts, theirs.parts)
        assert torch.equal(ours.has_parts, theirs.has_parts)
        assert torch.equal(ours.images, theirs.images)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_smaller_mask_holds_no_part_that_the_file_lacks(tmp_path, dtype):
    """Between parts 1 and 3 there is no part 2."""
    ids = np.full((24, 24), 1, dtype=dtype)
    ids[:, 11:] = 3
    ids[5:9, 2:6] = 0
    save(tmp_path / "m.png", ids)
    save(tmp_path / "i.png", np.zeros((24, 24, 3), dtype=np.uint8))
    for size in (7, 10, 17):
        assert decode_mask(tmp_path / "m.png", tmp_path / "i.png", size).unique().tolist() == [0, 1, 3]


def test_masks_are_fitted_like_their_images(tmp_path):
    """Where the image is white, its mask says so too, whatever the size: both by Pillow's own rules."""
    for height, width in ((30, 40), (41, 33)):
        ids = np.zeros((height, width), dtype=np.uint8)
        ids[8:20, 12:30] = 1
        save(tmp_path / "m.png", ids)
        save(tmp_path / "i.png", ids * 255)
        mask = decode_mask(tmp_path / "m.png", tmp_path / "i.png", size=16)
        white = decode(tmp_path / "i.png", 16)[0]
        assert mask.shape == (16, 16)
        assert (mask[white > 200] == 1).all()
        assert (mask[white < 50] == 0).all()
        assert 35 < (mask == 1).sum() < 120


def test_every_kind_of_mask_gives_its_numbers(tmp_path):
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    save(tmp_path / "8.png", ids)
    save(tmp_path / "16.png", ids.astype(np.uint16) + 300)
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette(list(range(255, -1, -1)) * 3)
    palette.putdata(ids.flatten().tolist())
    palette.save(tmp_path / "palette.png")
    save(tmp_path / "1.png", ids > 5)
    assert mask_ids(tmp_path / "8.png").tolist() == ids.tolist()
    assert mask_ids(tmp_path / "16.png").tolist() == (ids.astype(int) + 300).tolist()
    assert mask_ids(tmp_path / "palette.png").tolist() == ids.tolist()
    assert mask_ids(tmp_path / "1.png").tolist() == (ids > 5).astype(int).tolist()
    wide = decode_mask(tmp_path / "16.png", tmp_path / "8.png", count=400)
    assert wide.dtype == torch.int16
    assert wide[0].tolist() == [300, 301, 302, 303]
    assert decode_mask(tmp_path / "16.png", tmp_path / "8.png", size=3, count=400)[0].tolist() in (
        [300, 301, 302],
        [301, 302, 303],
    )
    assert decode_mask(tmp_path / "8.png", tmp_path / "8.png", count=11).dtype == torch.uint8


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: save(path, np.zeros((5, 12), np.uint8)), "is 12 x 5 and its image .*0.png is 12 x 10"),
        (lambda path: save(path, np.full((10, 12), 4, np.uint8)), "holds 4, and parts.json has part ids 1 to 3"),
        (lambda path: save(path, np.zeros((10, 12, 3), np.uint8)), "has mode RGB: a mask has one channel"),
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "Cannot read the mask"),
        (lambda path: path.write_bytes(b""), "Cannot read the mask"),
        (lambda path: save(path.with_suffix(".tif"), np.full((10, 12), -1, np.int32)) or
         path.with_suffix(".tif").replace(path), "negative numbers"),
    ],
)  # fmt: skip
def test_a_bad_mask_is_named(parts_root, spoil, words):
    path = parts_root / "parts" / "train" / "cat" / "0.png"
    spoil(path)
    with pytest.raises(UserError, match=words) as raised:
        load_parts(parts_root)
    assert "cat/0.png" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("{", "Cannot read .*parts.json"),
        ("[]", "must hold"),
        ('{"classes": "cat", "parts": {}}', "classes must be a list"),
        ('{"classes": ["cat", "dog"], "parts": {}}', "names no part"),
        ('{"parts": {"cat": {"a": 1}, "dgo": {"b": 2}}}', "class 'dgo' is in parts.json and not in images"),
        ('{"classes": ["cat"], "parts": {"cta": {"a": 1}}}', "'cta', which is no class. Did you mean 'cat'"),
        ('{"parts": {"cat": {"a": 1}, "dog": {"b": 1}}}', "cat a and dog b have the same id 1"),
        ('{"parts": {"cat": {"a": 1}, "dog": {"b": 3}}}', "ids run to 3 and 2 is missing"),
        ('{"parts": {"cat": {"a": 0}, "dog": {}}}', "cat a has id 0; ids are whole numbers from 1"),
        ('{"parts": {"cat": {"a": true}, "dog": {}}}', "cat a has id True"),
        ('{"parts": {"cat": {"a": 99999}, "dog": {}}}', "cat a has id 99999"),
        ('{"parts": {"cat": {"a": 1, "a": 2}, "dog": {}}}', "'a' is there twice"),
        ('{"parts": {"cat": ["a"], "dog": {}}}', "parts of cat must look like"),
        ('{"parts": {"cat": {"a": 1}, "dog": {}}, "background": 255}', "background is 255"),
    ],
)
def test_a_bad_table_is_explained(parts_root, table, words):
    (parts_root / "parts.json").write_text(table)
    with pytest.raises(UserError, match=words) as raised:
        load_parts(parts_root)
    assert "\n" not in str(raised.value)


def test_a_class_may_have_no_parts(parts_root):
    (parts_root / "parts.json").write_text(
        json.dumps({"parts": {"cat": {"a": 1, "b": 2, "c": 3}, "dog": {}}})
    )
    assert load_parts(parts_root).train.parts.names["dog"] == {}


def test_two_images_of_one_mask_are_named(parts_root):
    twin = parts_root / "images" / "train" / "cat" / "0.jpg"
    save(twin, np.zeros((10, 12, 3), np.uint8))
    with pytest.raises(UserError, match=r"0\.jpg and .*0\.png share the mask .*0\.png"):
        load_parts(parts_root)


def test_what_is_missing_is_named(parts_root, tmp_path):
    with pytest.raises(UserError, match=r"--data\.root DIR"):
        load_parts()
    with pytest.raises(UserError, match="cannot be downloaded"):
        load_parts(parts_root, download=True)
    (tmp_path / "parts.json").write_text('{"parts": {"cat": {"a": 1}}}')
    with pytest.raises(UserError, match="has no folder images"):
        load_parts(tmp_path)
    (parts_root / "parts.json").unlink()
    with pytest.raises(UserError, match=r"parts\.json is missing\. It names the parts"):
        load_parts(parts_root)


def test_the_fingerprint_follows_masks_and_names(parts_root):
    found = {load_parts(parts_root).train.fingerprint}
    path = parts_root / "parts" / "test" / "cat" / "0.png"
    save(path, np.zeros((10, 12), np.uint8))
    found.add(load_parts(parts_root).train.fingerprint)
    (parts_root / "parts.json").write_text(
        json.dumps({"parts": {"cat": {"hat": 1, "body": 2}, "dog": {"head": 3}}})
    )
    found.add(load_parts(parts_root).train.fingerprint)
    path.unlink()
    found.add(load_parts(parts_root).train.fingerprint)
    assert len(found) == 4


def test_images_without_a_mask_are_all_background(parts_root):
    for name in ("train", "val"):
        for mask in (parts_root / "parts" / name).rglob("*.png"):
            mask.unlink()
    train = load_parts(parts_root).train
    assert not train.parts.there.any()
    assert not train.read_parts(torch.arange(2)).any()


@pytest.mark.parametrize(
    ("names", "called"),
    [
        ({"cat": {"head": 1}, "dog": {"head": 2, "tail": 3}}, ["cat head", "dog head", "dog tail"]),
        ({"cat": {"cat": 1}, "dog": {"dog": 2}}, ["cat", "dog"]),  # labels of objects
        ({"cat": {"object": 1}, "dog": {"object": 1}}, ["object"]),  # of the foreground
        ({"cat": {"body": 1}, "dog": {"body": 1}, "car": {"body": 2}}, ["cat, dog body", "car body"]),
        ({"cat": {"head": 2}, "dog": {}}, ["part 1", "cat head"]),
        ({}, []),
    ],
)
def test_every_part_has_a_name_of_its_own(names, called):
    assert part_names(names) == ["background", *called]


@pytest.mark.slow
def test_reads_real_parts(shared):
    root = shared / "data" / "ade-parts"
    if not root.exists():
        pytest.skip("needs ../shared/data/ade-parts")
    splits = load_parts(root, size=32)
    sets = (splits.train, splits.validation, splits.test)
    assert [len(s) for s in sets] == [948, 145, 240]
    assert splits.test.parts.count == 52
    assert all(s.parts.there.all() for s in sets)
    own = 0
    for masks, label in zip(splits.test.parts.masks, splits.test.labels, strict=True):
        ids = set(splits.test.parts.names[splits.test.classes[label]].values())
        own += bool(ids & set(masks.unique().tolist()))
    assert own > 230  # nearly every crop shows a part of its own class
