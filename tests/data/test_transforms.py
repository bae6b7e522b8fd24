"""Augmentation: everything moves together, by draws that belong to the sample."""

import numpy as np
import pytest
import torch
from PIL import Image

from counterpart.batch import Batch
from counterpart.data import Augmentation, ResizedCrop, resize_maps
from counterpart.data.transforms import as_floats
from counterpart.seeding import Keys

SIDE = 8


def coded_batch(n=32):
    """Pixel values that say whose they are and where they come from; 0 is nobody's."""
    place = torch.arange(1, SIDE * SIDE + 1).view(SIDE, SIDE).float()
    index = torch.arange(1000, 1000 + n)
    images = (place / 100).expand(n, 3, SIDE, SIDE).clone()
    images[:, 1] = (torch.arange(1, n + 1) / n).view(-1, 1, 1)
    return Batch(
        images=images,
        labels=torch.arange(n) % 3,
        index=index,
        parts=place.long().expand(n, SIDE, SIDE),
        has_parts=torch.arange(n) % 2 == 0,
        importance=place.expand(n, SIDE, SIDE) - 5,
    )


def keys_of(batch, seed=0):
    return Keys(seed, "augment", batch.index)


def test_image_parts_and_importance_move_together():
    batch = coded_batch()
    moved = Augmentation()(batch, keys_of(batch))
    place = (moved.images[:, 0] * 100).round().long()
    outside = place == 0
    assert outside.any()
    assert not outside.all()
    assert torch.equal(moved.parts, place)
    assert torch.equal(moved.importance[~outside], place[~outside].float() - 5)
    assert (moved.importance[outside] == -4).all()  # each map's own minimum
    owner = (moved.images[:, 1] * 32).round().long() - 1
    assert torch.equal(owner[~outside], torch.arange(32).view(-1, 1, 1).expand_as(owner)[~outside])
    assert torch.equal(moved.images[:, 1] == 0, outside)
    for same in ("labels", "index", "has_parts"):
        assert torch.equal(getattr(moved, same), getattr(batch, same))


def test_padding_of_importance_is_each_maps_own_minimum():
    batch = coded_batch()
    shift = torch.arange(32).view(-1, 1, 1).float()
    batch = Batch(batch.images, batch.labels, batch.index, importance=batch.importance + shift)
    moved = Augmentation()(batch, keys_of(batch))
    outside = moved.images[:, 0] == 0
    assert torch.equal(moved.importance[outside], (shift - 4).expand_as(outside)[outside])


def test_crop_and_flip_equal_padding_slicing_and_mirroring():
    batch, padding = coded_batch(256), 2
    keys = keys_of(batch)
    moved = Augmentation(padding)(batch, keys).images
    padded = torch.nn.functional.pad(batch.images, [padding] * 4)
    candidates = {}
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            crop = padded[:, :, down : down + SIDE, right : right + SIDE]
            candidates[down, right, False], candidates[down, right, True] = crop, crop.flip(3)
    hits = torch.stack([(moved == c).flatten(1).all(dim=1) for c in candidates.values()], dim=1)
    assert (hits.sum(dim=1) == 1).all()  # exactly one shift explains each image
    assert (hits.sum(dim=0) > 0).all()  # all 50 occur, in about equal numbers
    flipped = hits[:, [k[2] for k in candidates]].sum()
    assert 100 < flipped < 156


def test_padding_alone_and_flip_alone():
    batch = coded_batch()
    keys = keys_of(batch)
    assert Augmentation(padding=0, flip=False)(batch, keys) is batch
    mirrored = Augmentation(padding=0)(batch, keys).images
    same = (mirrored == batch.images).flatten(1).all(dim=1)
    assert 4 < same.sum() < 28
    assert torch.equal(mirrored[~same], batch.images[~same].flip(3))
    cropped = Augmentation(padding=1, flip=False)(batch, keys).images[:, 0]
    assert (cropped[:, 4, 3] < cropped[:, 4, 4]).all()  # never mirrored


def test_draws_do_not_depend_on_the_rest_of_the_batch():
    batch = coded_batch()
    whole = Augmentation()(batch, keys_of(batch))
    some = torch.tensor([30, 3, 17])
    alone = Augmentation()(batch.select(some), keys_of(batch)[some])
    assert torch.equal(alone.images, whole.images[some])
    assert torch.equal(alone.importance, whole.importance[some])
    other = Augmentation()(batch, keys_of(batch, seed=1))
    assert not torch.equal(other.images, whole.images)


def test_an_empty_batch_stays_empty():
    batch = coded_batch().select(slice(0, 0))
    assert len(Augmentation()(batch, keys_of(batch))) == 0


def test_resize_maps_is_pillows_bicubic(generator):
    maps = torch.rand(3, 4, 6, generator=generator)
    for height, width in [(16, 12), (3, 3), (9, 2)]:
        resized = resize_maps(maps, (height, width))
        for ours, original in zip(resized, maps, strict=True):
            image = Image.fromarray(original.numpy()).resize((width, height), Image.Resampling.BICUBIC)
            torch.testing.assert_close(ours, torch.from_numpy(np.array(image)), atol=1e-5, rtol=0)
    assert resize_maps(maps, (4, 6)) is maps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_augmentation_agrees_between_devices():
    batch = coded_batch()
    on_cpu = Augmentation()(batch, keys_of(batch))
    on_gpu = Augmentation()(batch.to("cuda"), keys_of(batch.to("cuda")))
    assert torch.equal(on_gpu.images.cpu(), on_cpu.images)
    assert torch.equal(on_gpu.importance.cpu(), on_cpu.importance)


def test_floats_are_correctly_rounded_shares_of_255():
    """Multiplying by the reciprocal of 255, as CUDA does for a number, would miss some by a bit."""
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    expected = (torch.arange(256, dtype=torch.float64) / 255).float().view(1, 1, 16, 16)
    assert torch.equal(as_floats(pixels), expected)
    assert not torch.equal(pixels.float() * torch.tensor(1 / 255), expected)


def test_a_resized_crop_is_torchvisions(generator):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as V

    batch = Batch(
        images=torch.rand(40, 3, 24, 20, generator=generator),
        labels=torch.zeros(40).long(),
        index=torch.arange(40),
        parts=torch.randint(0, 9, (40, 24, 20), generator=generator),
        importance=torch.rand(40, 24, 20, generator=generator),
    )
    crop, keys = ResizedCrop(flip=False), keys_of(batch)
    moved = crop(batch, keys)
    top, left, tall, wide = crop.regions(keys, 24, 20)
    for i in range(40):
        region = (int(top[i]), int(left[i]), int(tall[i]), int(wide[i]))
        expected = V.resized_crop(batch.images[i], *region, [24, 20], antialias=True)
        torch.testing.assert_close(moved.images[i], expected, atol=1e-5, rtol=0)
        mask = V.resized_crop(batch.parts[i, None], *region, [24, 20], InterpolationMode.NEAREST_EXACT)
        assert torch.equal(moved.parts[i], mask[0])
        maps = V.resized_crop(batch.importance[i, None], *region, [24, 20], antialias=True)
        torch.testing.assert_close(moved.importance[i], maps[0], atol=1e-5, rtol=0)


def test_image_and_parts_stay_together_in_resized_crops():
    """Images show their parts' ids, scaled, so wherever no two parts are mixed both say the same."""
    parts = (torch.arange(32).view(32, 1) // 16 * 2 + torch.arange(32) // 16).expand(64, 32, 32)
    images = (parts.float() / 3)[:, None]
    batch = Batch(images, torch.zeros(64).long(), torch.arange(64), parts=parts)
    moved = ResizedCrop()(batch, keys_of(batch))
    wrong = (moved.images[:, 0] * 3 - moved.parts).abs()
    assert (wrong > 1.5).float().mean() < 0.02  # a border's pixel or two
    assert (wrong < 1e-4).float().mean() > 0.8
    flipped = ResizedCrop(scale=(1, 1), ratio=(1, 1))(batch, keys_of(batch))
    mirrored = (flipped.parts == parts.flip(2)).flatten(1).all(dim=1)
    assert 16 < mirrored.sum() < 48
    assert torch.equal(flipped.images[mirrored], batch.images[mirrored].flip(3))
    assert torch.equal(flipped.images[~mirrored], batch.images[~mirrored])


def test_regions_have_the_asked_area_and_ratio_and_lie_inside():
    keys = Keys(0, "augment", torch.arange(4000))
    top, left, tall, wide = ResizedCrop().regions(keys, 50, 80)
    assert ((top >= 0) & (top + tall <= 50) & (left >= 0) & (left + wide <= 80)).all()
    share, ratio = (tall * wide).double() / 4000, wide.double() / tall
    assert 0.07 < share.min() < 0.1
    assert share.max() > 0.75  # more does not fit within this ratio
    assert 0.7 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4
    assert 0.48 < (left.double() / (80 - wide).clamp_min(1)).mean() < 0.52
    for height, width in ((10, 90), (90, 10)):  # nothing of 90 % of the area fits: the largest centred region
        top, left, tall, wide = ResizedCrop(scale=(0.9, 1)).regions(keys[:5], height, width)
        region = (38, 0, 13, 10) if width == 10 else (0, 38, 10, 13)
        assert [
            (int(a), int(b), int(c), int(d)) for a, b, c, d in zip(top, left, tall, wide, strict=True)
        ] == [region] * 5


def test_no_part_within_a_region_is_lost():
    """One labelled pixel, as of a centroid: it survives in every region that holds it."""
    parts = torch.zeros(300, 16, 16, dtype=torch.long)
    parts[:, 7, 5] = 4
    batch = Batch(torch.zeros(300, 1, 16, 16), torch.zeros(300).long(), torch.arange(300), parts=parts)
    crop, keys = ResizedCrop(), keys_of(batch)
    top, left, tall, wide = crop.regions(keys, 16, 16)
    holds = (top <= 7) & (top + tall > 7) & (left <= 5) & (left + wide > 5)
    assert 50 < holds.sum() < 290
    assert torch.equal((crop(batch, keys).parts == 4).flatten(1).any(dim=1), holds)


def test_resized_crops_do_not_depend_on_the_rest_of_the_batch():
    batch = coded_batch()
    whole = ResizedCrop()(batch, keys_of(batch))
    some = torch.tensor([30, 3, 17])
    alone = ResizedCrop()(batch.select(some), keys_of(batch)[some])
    assert torch.equal(alone.images, whole.images[some])
    assert torch.equal(alone.parts, whole.parts[some])
    assert torch.equal(alone.importance, whole.importance[some])
    assert len(ResizedCrop()(batch.select(slice(0, 0)), keys_of(batch)[:0])) == 0
    assert not torch.equal(ResizedCrop()(batch, keys_of(batch, seed=1)).images, whole.images)
