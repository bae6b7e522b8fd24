"""Masks of the user's own: found by name, checked, and never with another image."""

import dataclasses
import logging
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart import distributed
from counterpart.data import (
    Augmentation,
    ResizedCrop,
    batches,
    epoch_order,
    folder,
    load_digits,
    load_folder,
    load_synthetic_parts,
    mask_files,
)
from counterpart.data.image_sets import ImageSet, Splits, hold_out, numbered
from counterpart.data.mapped import room_for
from counterpart.data.mask_files import masks_fingerprint, with_masks
from counterpart.errors import UserError

CPU = torch.device("cpu")
SIDE = 12


def noise(number, side=SIDE):
    """Grey noise without 0, which is padding alone, and with 255: another one for every number."""
    pixels = np.random.default_rng(number).integers(1, 255, (side, side), dtype=np.uint8)
    pixels[0, 0] = 255
    return pixels


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def places(tmp_path):
    """Eleven images whose red channel is their own mask, in two classes and two splits; the masks beside them."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for number in range(11):
        name = f"{'train' if number < 8 else 'test'}/{'ab'[number % 2]}/{number}"
        grey = noise(number)
        save(images / f"{name}.bmp", np.stack([grey, np.full_like(grey, number + 1), grey], axis=2))
        save(masks / f"{name}.png", grey)
    return images, masks


def loaded(places, needed="train", **options):
    images, masks = places
    return with_masks(load_folder(images, validation=0.25, **options), masks, needed)


def assert_aligned(batch, origin):
    """Where an image was not padded, its importance is its own red channel; ``origin`` is index -> number."""
    for image, importance, index in zip(batch.images, batch.importance, batch.index.tolist(), strict=True):
        inside = image[0] > 0
        number = origin[index]
        assert (image[1][inside] * 255).round().unique().tolist() == [number + 1]
        assert torch.equal(importance[inside], image[0][inside])
        assert (importance[~inside] == noise(number).min() / np.float32(255)).all()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_mask_follows_its_image_through_shuffling_crops_and_flips(
    places, monkeypatch, processes, in_memory
):
    if not in_memory:
        monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 0)
    images = loaded(places).train
    assert (images.pixels is not None) == in_memory
    origin = {i: int(name.split("/")[-1].split(".")[0]) for i, name in
              zip(images.index.tolist(), images.names, strict=True)}  # fmt: skip
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    padded = False
    for epoch in range(3):
        order, seen = epoch_order(len(images), seed=1, epoch=epoch), []
        for rank in range(processes):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            for batch in batches(images, batch_size=4, device=CPU, order=order, augmentation=Augmentation(3),
                                 seed=1, epoch=epoch):  # fmt: skip
                assert_aligned(batch, origin)
                padded |= bool((batch.images == 0).any())
                seen += batch.index.tolist()
        assert sorted(seen) == sorted(images.index.tolist())
    assert padded


def test_masks_are_resized_with_their_image(places):
    images = loaded(places).train
    (batch,) = batches(images, batch_size=9, device=CPU, augmentation=ResizedCrop(), seed=1)
    assert torch.equal(batch.importance, batch.images[:, 0])
    assert not torch.equal(batch.images[:1], images.read(torch.tensor([0])) / 255)


def test_every_data_set_without_files_names_its_samples():
    splits = load_synthetic_parts(train=10, test=4)
    assert splits.test.names == ("test/00000", "test/00001", "test/00002", "test/00003")


def test_masks_of_held_out_images_lie_with_the_split_they_came_from(places):
    splits = loaded(places)
    for images in (splits.train, splits.validation, splits.test):
        (batch,) = batches(images, batch_size=9, device=CPU)
        assert torch.equal(batch.importance, batch.images[:, 0])
    some = splits.test.subset(torch.tensor([2, 0]))
    assert torch.equal(some.read_masks(torch.tensor([0])), splits.test.read_masks(torch.tensor([2])))


def test_an_image_without_a_mask_is_told_and_has_none(places, caplog):
    (places[1] / "train" / "a" / "4.png").unlink()
    with caplog.at_level(logging.WARNING):
        splits = loaded(places)
    held = next(s for s in (splits.train, splits.validation) if "train/a/4.bmp" in s.names)
    row = held.names.index("train/a/4.bmp")
    shares = held.read_masks(torch.arange(len(held)))
    assert shares[row].isnan().all()
    assert not shares[[i for i in range(len(held)) if i != row]].isnan().any()
    if held is splits.train:
        assert "1 of 6 train images have no mask (train/a/4.bmp)" in caplog.text


def test_a_mask_has_its_images_size_or_the_networks(places):
    images, masks = places
    save(masks / "test" / "a" / "8.png", noise(3, side=6))

    def of(number, **options):
        test = with_masks(load_folder(images, size=6, **options), masks, "train").test
        at = torch.tensor([test.names.index(f"test/{'ab'[number % 2]}/{number}.bmp")])
        return test.read_masks(at)[0] * 255, test.read(at)[0, 0].float()

    mask, image = of(9)
    torch.testing.assert_close(mask, image)  # resized as the image is
    assert torch.equal(of(8)[0], torch.from_numpy(noise(3, side=6)).float())  # taken as it is

    def prepare(image):  # a network's own way
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[:, 2:8, 4:10].contiguous()

    assert torch.equal(of(9, prepare=prepare)[0], torch.from_numpy(noise(9))[2:8, 4:10].float())


def test_sets_without_files_have_masks_by_row(tmp_path):
    splits = load_digits()
    assert splits.train.names[3] == f"all/{int(splits.train.index[3]):05d}"
    first, other = splits.train.names[0], splits.test.names[5]
    for name in (first, other):
        save(tmp_path / f"{name}.png", noise(0, side=16))
    made = with_masks(splits, tmp_path, "test")
    assert (
        ~made.test.read_masks(torch.arange(400)).flatten(1).isnan().any(dim=1)
    ).nonzero().flatten().tolist() == [5]
    assert len(made.train.masks) == 1


@pytest.mark.parametrize(
    ("file", "pixels", "message"),
    [
        ("train/a/0.png", np.zeros((SIDE, SIDE - 1), np.uint8), r"0\.png is 11 x 12: its image needs 12 x 12\."),
        ("train/a/0.png", np.zeros((SIDE, SIDE), np.uint16), r"0\.png is a 16-bit image: a mask is an 8-bit grey PNG"),
        ("train/a/0.png", np.zeros((SIDE, SIDE, 3), np.uint8), r"0\.png is a colour image \(RGB\)"),
        ("train/a/0.png", np.zeros((SIDE, SIDE, 4), np.uint8), r"0\.png is a colour image \(RGBA\)"),
        ("train/a/99.png", noise(0), r"to 1 of the 12 files there \(train/a/99\.png\).*such as train/a/\d\.png"),
        ("train/a/0.jpg", noise(0), r"belongs to 1 of the 12 files there \(train/a/0\.jpg\)"),
        ("notes/1.png", noise(0), r"belongs to 1 of the 12 files there \(notes/1\.png\)"),
    ],
)  # fmt: skip
def test_masks_that_do_not_fit_are_refused_in_one_line(places, file, pixels, message):
    save(places[1] / file, pixels)
    with pytest.raises(UserError, match=message) as refusal:
        loaded(places)
    assert "\n" not in str(refusal.value)


def test_other_files_that_are_no_masks(places):
    images, masks = places
    path = masks / "train" / "a" / "0.png"
    whole = path.read_bytes()
    Image.fromarray(noise(0)).convert("P").save(path)
    with pytest.raises(UserError, match=r"0\.png is a palette image"):
        loaded(places)
    Image.fromarray(noise(0)).save(path, format="JPEG")
    with pytest.raises(UserError, match=r"0\.png is a JPEG file"):
        loaded(places)
    path.write_bytes(whole[:60])
    with pytest.raises(UserError, match=r"Cannot read the mask .*0\.png"):
        loaded(places)
    Image.fromarray(noise(0) > 99).save(path)  # black and white
    assert loaded(places).train.masks.shape[1:] == (SIDE, SIDE)
    (masks / "train" / ".DS_Store").write_text("hidden files are passed over")
    loaded(places)
    save(images / "train" / "a" / "0.png", np.zeros((SIDE, SIDE, 3), np.uint8))
    with pytest.raises(
        UserError, match=r"mask of train/a/0\.(bmp|png) and of train/a/0\.(bmp|png): rename one"
    ):
        loaded(places)


def test_no_masks_where_they_are_needed(places, tmp_path):
    images, masks = places
    with pytest.raises(UserError, match=r"mask\.files: .*nowhere is missing"):
        with_masks(load_folder(images), tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"no mask for any train image: expected files such as train/a/\d\.png"
    ):
        with_masks(load_folder(images), tmp_path / "empty", "train")
    for file in (masks / "test").rglob("*.png"):
        file.unlink()
    loaded(places)
    with pytest.raises(UserError, match="no mask for any test image"):
        loaded(places, "test")


def test_masks_that_do_not_fit_into_memory_are_mapped_and_the_same(places, monkeypatch):
    within = loaded(places).train
    monkeypatch.setattr(mask_files, "IN_MEMORY", 2 * SIDE * SIDE)
    beyond = loaded(places).train
    assert beyond.masks.untyped_storage().filename is not None
    assert within.masks.untyped_storage().filename is None
    assert torch.equal(beyond.read_masks(torch.arange(3)), within.read_masks(torch.arange(3)))
    assert masks_fingerprint(beyond) == masks_fingerprint(within)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(
        UserError, match=rf"{tmp_path} lacks room for 931322\.6 GiB that do not fit into memory"
    ):
        room_for((10**9, 10**6), torch.uint8, most=100)
    assert [*tmp_path.iterdir()] == []
    assert room_for((5, 20), torch.uint8, most=100).untyped_storage().filename is None


def test_the_fingerprint_is_of_masks_and_owners():
    index = torch.arange(4)
    images = ImageSet("toy", "train", ("a",), index * 0, index, "f" * 12, (1, 2, 2),
                      torch.zeros(4, 1, 2, 2, dtype=torch.uint8), names=numbered("train", 4))  # fmt: skip
    assert masks_fingerprint(images) is None
    masks, rows = torch.arange(8, dtype=torch.uint8).view(2, 2, 2), torch.tensor([0, -1, 1, -1])
    one = masks_fingerprint(dataclasses.replace(images, masks=masks, mask_rows=rows))
    assert one == masks_fingerprint(dataclasses.replace(images, masks=masks.clone(), mask_rows=rows.clone()))
    assert one != masks_fingerprint(dataclasses.replace(images, masks=masks + 1, mask_rows=rows))
    assert one != masks_fingerprint(dataclasses.replace(images, masks=masks, mask_rows=rows.roll(1)))
    train, held = hold_out(dataclasses.replace(images, masks=masks, mask_rows=rows), 0.5, "validation")
    assert Splits(train, held, held).validation.mask_rows.tolist() == rows[held.index].tolist()
