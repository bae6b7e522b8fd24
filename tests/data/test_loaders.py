"""Batches: identity survives shuffling, subsets, augmentation, sharding and resuming."""

import dataclasses

import pytest
import torch
from PIL import Image
from tests.data.comparing import collect, same

from counterpart import distributed
from counterpart.data import Augmentation, ImageSet, batches, epoch_order
from counterpart.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture
def images():
    """23 images whose every pixel is their index, which is not their position."""
    n = 23
    index = torch.arange(n) + 40
    return ImageSet(
        name="toy",
        split="train",
        classes=("a", "b"),
        labels=index % 2,
        index=index,
        fingerprint="0" * 12,
        shape=(1, 6, 6),
        pixels=index.byte().view(n, 1, 1, 1).expand(n, 1, 6, 6).contiguous(),
    )


@pytest.fixture
def on_disk(images, tmp_path):
    """The same images as files that are decoded on demand."""
    paths = tuple(tmp_path / f"{i:02d}.png" for i in range(len(images)))
    for path, pixels in zip(paths, images.pixels, strict=True):
        Image.fromarray(pixels[0].numpy()).convert("RGB").save(path)
    return dataclasses.replace(images, shape=(3, 6, 6), pixels=None, files=paths)


def test_epoch_order_is_a_permutation_of_seed_and_epoch():
    order = epoch_order(50, seed=1, epoch=3)
    assert sorted(order.tolist()) == list(range(50))
    assert torch.equal(order, epoch_order(50, seed=1, epoch=3))
    assert not torch.equal(order, epoch_order(50, seed=1, epoch=4))
    assert not torch.equal(order, epoch_order(50, seed=2, epoch=3))
    first = torch.stack([epoch_order(8, 0, epoch) for epoch in range(400)])[:, 0]
    assert (torch.bincount(first, minlength=8) > 20).all()


@pytest.mark.parametrize("kind", ["images", "on_disk"])
def test_every_sample_comes_once_and_whole(kind, request):
    images = request.getfixturevalue(kind)
    order = epoch_order(23, seed=0, epoch=0)
    out = collect(images, order=order)
    assert [len(batch) for batch in out] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([batch.index for batch in out]), images.index[order])
    for batch in out:
        assert batch.images.shape[1:] == images.shape
        assert torch.equal(batch.images, (batch.index / 255).view(-1, 1, 1, 1).expand_as(batch.images))
        assert torch.equal(batch.labels, batch.index % 2)


def test_default_order_and_subsets(images):
    assert torch.cat([b.index for b in collect(images)]).tolist() == images.index.tolist()
    some = images.subset(torch.tensor([7, 2]))
    (batch,) = collect(some)
    assert batch.index.tolist() == [47, 42]
    assert (batch.images[:, 0, 0, 0] * 255).round().tolist() == [47, 42]


@pytest.mark.parametrize("kind", ["images", "on_disk"])
@pytest.mark.parametrize("first", [0, 1, 4, 5])
def test_first_equals_skipping(kind, first, request):
    arguments = {"order": epoch_order(23, 0, 1), "augmentation": Augmentation(2), "seed": 3, "epoch": 1}
    arguments["maps"] = torch.rand(80, 3, 3)
    images = request.getfixturevalue(kind)
    same(collect(images, first=first, **arguments), collect(images, **arguments)[first:])


def test_skipped_batches_are_not_read(on_disk):
    on_disk.files[0].unlink()
    assert len(collect(on_disk, first=1)) == 4
    with pytest.raises(UserError, match=r"00\.png"):
        collect(on_disk)


def test_files_are_read_one_batch_ahead_and_no_further(on_disk, monkeypatch):
    asked = []
    read = ImageSet.read
    monkeypatch.setattr(ImageSet, "read", lambda self, p: asked.append(len(p)) or read(self, p))
    stream = batches(dataclasses.replace(on_disk, workers=0), batch_size=5, device=CPU)
    next(stream)
    stream.close()  # waits for what has been begun
    assert len(asked) == 2


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_shares_make_up_the_whole(images, monkeypatch, processes):
    arguments = {
        "order": epoch_order(23, 0, 0),
        "augmentation": Augmentation(1),
        "maps": torch.rand(80, 6, 6),
    }
    whole = collect(images, **arguments)
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(collect(images, **arguments))
    assert {len(share) for share in shares} == {5}  # every process counts the same steps
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for name in ("index", "labels", "images", "importance"):
            assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


def test_each_sample_gets_its_own_map_after_shuffling_and_augmentation(images):
    place = torch.arange(36).view(6, 6)
    maps = torch.arange(80).view(-1, 1, 1) * 100.0 + place  # map i says i and where
    images = dataclasses.replace(images, pixels=(place + 1).byte().expand(23, 1, 6, 6).contiguous())
    seen = []
    for epoch in range(3):
        order = epoch_order(23, seed=0, epoch=epoch)
        for batch in collect(images, order=order, augmentation=Augmentation(2), epoch=epoch, maps=maps):
            here = (batch.images[:, 0] * 255).round() - 1
            here = here.clamp_min(0)  # padding: the map's own minimum, at place 0
            assert torch.equal(batch.importance, batch.index.view(-1, 1, 1) * 100 + here)
            seen.append(batch.images)
    assert not torch.equal(torch.cat(seen[:5]), torch.cat(seen[5:10]))


def test_small_maps_are_resized_to_the_image(images):
    maps = torch.rand(80, 2, 2)
    (batch,) = collect(images, maps=maps, batch_size=23)
    assert batch.importance.shape == (23, 6, 6)
    assert (batch.importance[:, 0, 0] - maps[images.index, 0, 0]).abs().max() < 0.3


def test_augmentation_changes_with_the_epoch_and_the_seed_only(images):
    images = dataclasses.replace(images, pixels=torch.arange(36).byte().view(1, 1, 6, 6).repeat(23, 1, 1, 1))
    arguments = {"augmentation": Augmentation(2), "batch_size": 23}
    (base,) = collect(images, **arguments)
    (again,) = collect(images, **arguments)
    assert torch.equal(base.images, again.images)
    for changed in ({"epoch": 1}, {"seed": 1}):
        (other,) = collect(images, **arguments, **changed)
        assert not torch.equal(base.images, other.images)


def test_augmentation_follows_the_index_and_not_the_position(images):
    images = dataclasses.replace(images, pixels=torch.arange(36).byte().view(1, 1, 6, 6).repeat(23, 1, 1, 1))
    (whole,) = collect(images, augmentation=Augmentation(2), batch_size=23)
    some = torch.tensor([20, 3, 11, 4])
    (few,) = collect(images.subset(some), augmentation=Augmentation(2))
    assert torch.equal(few.images, whole.images[some])


def test_white_is_exactly_one(images):
    white = dataclasses.replace(images, pixels=torch.full((23, 1, 6, 6), 255, dtype=torch.uint8))
    assert all(bool((batch.images == 1).all()) for batch in collect(white))


def test_refuses_an_empty_set_and_too_few_maps(images):
    with pytest.raises(UserError, match="train split of toy is empty"):
        collect(images.subset(torch.arange(0)))
    with pytest.raises(ValueError, match="62 maps for sample indices up to 62"):
        collect(images, maps=torch.rand(62, 6, 6))
