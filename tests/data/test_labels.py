"""Cheaper labels: boxes and points against brute force, tables, and shares of labels."""

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
from counterpart.data.labels import KINDS, boxes, centroids

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
