"""Controls: each changes where the budget lies, and keeps what it promises to keep."""

import pytest
import torch

from counterpart.importance import controls
from counterpart.importance.masks import Mask
from counterpart.seeding import Keys

KEYS = Keys(0, "controls", torch.arange(6))


@pytest.fixture(params=[1, 3], ids=["plane", "channels"])
def mask(request, generator):
    share = torch.rand(6, request.param, 8, 8, generator=generator)
    return Mask((share > 0.7).float(), torch.tensor([False, True, False, False, True, False]))


def values(share):
    return share.flatten(2).sort(dim=2).values


def test_uniform_keeps_each_mean_and_nothing_else(mask):
    share, flat = controls.uniform(mask)
    assert (share.flatten(1).std(dim=1) == 0).all()
    assert share.shape == (6, 1, 8, 8)
    torch.testing.assert_close(share.mean(dim=(1, 2, 3)), mask.share.mean(dim=(1, 2, 3)))
    assert share.flatten(1)[:, 0].unique().numel() > 1  # each image's own, not the batch's
    assert torch.equal(flat, mask.flat)


def test_shuffled_gives_each_image_the_next_ones_plane(mask):
    share, flat = controls.shuffled(mask)
    for row, source in ((0, 2), (2, 3), (3, 5), (5, 0), (1, 1), (4, 4)):  # 1 and 4 are flat
        assert torch.equal(share[row], mask.share[source])
    assert torch.equal(flat, mask.flat)
    one = Mask(mask.share[:1], mask.flat[:1])
    assert torch.equal(controls.shuffled(one).share, one.share)
    none = Mask(mask.share, torch.ones(6, dtype=torch.bool))
    assert torch.equal(controls.shuffled(none).share, mask.share)


def test_random_permutes_pixels_alike_in_all_channels(mask):
    share, _ = controls.random(mask, KEYS)
    assert torch.equal(values(share), values(mask.share))
    assert not torch.equal(share, mask.share)
    code = torch.arange(64.0).view(1, 1, 8, 8).repeat(6, 3, 1, 1)
    moved = controls.random(Mask(code, mask.flat), KEYS).share
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert not torch.equal(moved[0], moved[1])  # its own for each image
    assert torch.equal(values(moved), values(code))


def test_random_is_drawn_from_the_keys(mask):
    share = controls.random(mask, KEYS).share
    part = Mask(mask.share[2:4], mask.flat[2:4])
    assert torch.equal(controls.random(part, KEYS[2:4]).share, share[2:4])  # whatever else is in the batch
    assert not torch.equal(controls.random(mask, KEYS.fold(1)).share, share)


def test_inverse_swaps_the_two_radii(mask):
    share, _ = controls.inverse(mask)
    assert torch.equal(share, (mask.share == 0).float())
    assert torch.equal(controls.inverse(controls.inverse(mask)).share, mask.share)


def test_inverse_at_one_keeps_a_mean_of_one():
    share = torch.tensor([0.0, 0, 0, 4]).view(1, 1, 2, 2)
    inverse = controls.inverse(Mask(share, torch.zeros(1, dtype=torch.bool)), middle=1.0).share
    assert inverse.flatten().tolist() == [2, 2, 2, -2]
