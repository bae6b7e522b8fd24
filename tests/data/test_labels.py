"""Cheaper labels: boxes and points against brute force, tables, and shares of labels."""

from dataclasses import replace

import pytest
import torch

from counterpart.data import (
    ImageSet,
    Parts,
    folder,
    keep_labels,
    load_parts,
    load_synthetic_parts,
    relabelled,
)
from counterpart.data.labels import KINDS, boxes, centroids, common_parts, say_what_stays
from counterpart.errors import UserError

NAMES = {"cat": {"head": 1, "body": 2}, "dog": {"head": 3}}


def test_boxes_by_hand():
    mask = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 3]]).byte()[None]
    expected = [[1, 1, 1, 0], [1, 1, 1, 0], [0, 3, 3, 3], [0, 3, 3, 3]]
    assert boxes(mask, 3)[0].tolist() == expected
    overlapping = torch.tensor([[2, 0, 2], [0, 1, 1], [2, 0, 0]]).byte()[None]
    assert boxes(overlapping, 3)[0].tolist() == [[2, 2, 2]] * 3  # 1's box lies within 2's
    assert not boxes(torch.zeros(2, 3, 3, dtype=torch.uint8), 3).any()


def test_centroids_by_hand():
    mask = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 2, 2, 0], [0, 2, 2, 3]]).byte()[None]
    expected = [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 2, 3]]  # 2.5 and 1.5 round up
    assert centroids(mask, 3)[0].tolist() == expected


def test_boxes_and_centroids_equal_brute_force(generator):
    masks = torch.randint(0, 6, (7, 9, 11), generator=generator) * torch.randint(
        0, 2, (7, 9, 11), generator=generator
    )
    masks[0] = 0
    ours = boxes(masks, 5), centroids(masks, 5)
    for i, mask in enumerate(masks):
        box, point = torch.zeros_like(mask), torch.zeros_like(mask)
        for part in range(1, 6):
            places = (mask == part).nonzero()
            if len(places):
                (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
                box[top : bottom + 1, left : right + 1] = part
                y, x = (places.double().mean(0) + 0.5).floor().long().tolist()
                point[y, x] = part
        assert torch.equal(ours[0][i], box)
        assert torch.equal(ours[1][i], point)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_in_memory_and_on_demand_are_the_same(parts_root, monkeypatch, kind):
    in_memory = relabelled(load_parts(parts_root).train, kind)
    monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 100)
    lazy = relabelled(load_parts(parts_root).train, kind)
    assert lazy.parts.names == in_memory.parts.names
    assert torch.equal(lazy.read_parts(torch.arange(8)), in_memory.read_parts(torch.arange(8)))
    assert torch.equal(lazy.parts.there, in_memory.parts.there)


def test_objects_and_foreground_merge_parts(parts_root):
    train = load_parts(parts_root).train
    masks = train.read_parts(torch.arange(8))
    objects, foreground = relabelled(train, "objects"), relabelled(train, "foreground")
    assert objects.parts.names == {"cat": {"cat": 1}, "dog": {"dog": 2}}
    assert objects.parts.count == 2
    assert torch.equal(objects.read_parts(torch.arange(8)), torch.tensor([0, 1, 1, 2])[masks])
    assert foreground.parts.names == {"cat": {"object": 1}, "dog": {"object": 1}}
    assert torch.equal(foreground.read_parts(torch.arange(8)), (masks > 0).long())
    with pytest.raises(ValueError, match="made of the masks already"):
        relabelled(objects, "boxes")


def test_sets_without_parts_stay_as_they_are():
    images = ImageSet(
        "toy",
        "train",
        ("a",),
        torch.zeros(1).long(),
        torch.arange(1),
        "0" * 12,
        (1, 2, 2),
        torch.zeros(1, 1, 2, 2).byte(),
    )
    assert relabelled(images, "boxes") is images
    with pytest.raises(ValueError, match="toy has no parts"):
        keep_labels(images, 0.5)
    with pytest.raises(ValueError, match="toy has no parts"):
        images.read_parts(torch.arange(1))


def toy(n=200):
    labels = torch.arange(n) % 2
    masks = torch.ones(n, 4, 4, dtype=torch.uint8)
    there = torch.arange(n) < n - 20  # the last 20 were never annotated
    return ImageSet(
        "toy", "train", ("cat", "dog"), labels, torch.arange(n), "0" * 12, (1, 4, 4),
        torch.zeros(n, 1, 4, 4, dtype=torch.uint8), parts=Parts(NAMES, 3, there, masks * there.view(-1, 1, 1)),
    )  # fmt: skip


def test_a_share_of_labels_is_kept_in_each_class():
    images = toy()
    kept = {share: keep_labels(images, share).parts for share in (0.1, 0.3, 0.5)}
    for share, parts in kept.items():
        assert torch.bincount(images.labels[parts.there]).tolist() == [round(90 * share)] * 2
        assert torch.equal(parts.masks.flatten(1).any(dim=1), parts.there)
    assert (kept[0.3].there | kept[0.1].there).equal(
        kept[0.3].there
    )  # a smaller share is part of a larger one
    assert keep_labels(images, 1) is images
    assert torch.equal(keep_labels(images, 0.3).parts.there, kept[0.3].there)
    assert keep_labels(images, 1e-6).parts.there.sum() == 1


def test_dropped_labels_are_not_read_from_files_either(parts_root, monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 100)
    images = keep_labels(load_parts(parts_root).train, 0.5)
    (dropped,) = (~images.parts.there).nonzero()[:, 0].split(8)
    assert len(dropped) == 4  # of seven with a mask
    assert not images.read_parts(dropped).any()


def test_every_kind_of_label_keeps_what_parts_are_there():
    train = load_synthetic_parts(train=60, test=2, size=32).train
    whole = train.parts.masks
    for kind in ("boxes", "centroids"):
        masks = relabelled(train, kind).parts.masks
        for mask, original in zip(masks, whole, strict=True):
            assert set(mask.unique().tolist()) <= set(original.unique().tolist())
    points = relabelled(train, "centroids").parts.masks
    assert ((points > 0).flatten(1).sum(dim=1) <= 4).all()
    assert (points > 0).flatten(1).any(dim=1).all()


def test_parts_that_cover_little_of_their_class_become_background(parts_root, monkeypatch):
    """Head and body of a cat cover as many pixels, half of all each."""
    train = load_parts(parts_root).train
    assert common_parts(train, 0.5) == {"cat": ["head", "body"], "dog": ["head"]}
    assert common_parts(train, 0.51) == {"cat": [], "dog": ["head"]}
    for in_memory in (True, False):
        monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 2**31 if in_memory else 100)
        images = load_parts(parts_root).test
        before = images.read_parts(torch.arange(8))
        fewer = relabelled(images, "parts", {"dog": ["head"], "cat": ["body"]})
        assert fewer.parts.names == {"cat": {"body": 1}, "dog": {"head": 2}}
        assert fewer.parts.count == 2
        assert fewer.parts.there.tolist() == images.parts.there.tolist()
        expected = torch.tensor([0, 0, 1, 2])[before]
        assert torch.equal(fewer.read_parts(torch.arange(8)), expected)
        assert common_parts(load_parts(parts_root).train, 0.5) == {"cat": ["head", "body"], "dog": ["head"]}


def test_the_share_is_of_the_class_and_pictures_without_masks_do_not_count():
    masks = torch.zeros(3, 4, 4, dtype=torch.uint8)
    masks[0, 0] = 1
    masks[0, 1:] = 2  # 4 and 12 pixels of a cat: a quarter and the rest
    masks[1, 0, 0] = 3  # the only pixel of a dog
    masks[2] = 1  # not annotated, whatever its mask holds
    parts = Parts(names=NAMES | {"eel": {}}, stored=3, there=torch.tensor([True, True, False]), masks=masks)
    images = ImageSet(
        name="drawn", split="train", classes=("cat", "dog", "eel"), labels=torch.tensor([0, 1, 0]),
        index=torch.arange(3), fingerprint="0", shape=(1, 4, 4), pixels=torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
        parts=parts,
    )  # fmt: skip
    assert common_parts(images, 0.25) == {"cat": ["head", "body"], "dog": ["head"], "eel": []}
    assert common_parts(images, 0.26) == {"cat": ["body"], "dog": ["head"], "eel": []}
    said = say_what_stays(parts.names, common_parts(images, 0.26), 0.26)
    assert said == "data.parts_min_share 0.26: 2 of 3 parts stay. Background from here on: cat head."
    assert (
        say_what_stays(parts.names, common_parts(images, 0.1), 0.1)
        == "data.parts_min_share 0.1: 3 of 3 parts stay."
    )
    empty = replace(images, parts=replace(parts, there=torch.zeros(3, dtype=torch.bool)))
    with pytest.raises(UserError, match=r"data\.parts_min_share 0\.1: no part of drawn covers this share"):
        common_parts(empty, 0.1)


def test_cheaper_labels_are_made_of_the_parts_that_stay(parts_root):
    images, staying = load_parts(parts_root).train, {"cat": ["body"], "dog": ["head"]}
    before = images.read_parts(torch.arange(8))
    fewer = torch.tensor([0, 0, 1, 2])[before]
    boxed = relabelled(images, "boxes", staying)
    assert torch.equal(boxed.read_parts(torch.arange(8)), boxes(fewer, 2))
    objects = relabelled(images, "objects", staying)
    assert torch.equal(objects.read_parts(torch.arange(8)), fewer)
    assert objects.parts.names == {"cat": {"cat": 1}, "dog": {"dog": 2}}


def test_a_model_that_knows_parts_that_the_data_does_not_name_is_told_which(parts_root):
    with pytest.raises(UserError, match="the model finds the part 'tail' of cat, which parts does not name"):
        relabelled(load_parts(parts_root).test, "parts", {"cat": ["tail"]})
