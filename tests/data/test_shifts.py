"""Objects before other backgrounds and with other textures, on images whose every pixel says where it is from."""

from dataclasses import replace

import pytest
import torch

from counterpart.data.image_sets import ImageSet
from counterpart.data.parts import Parts
from counterpart.data.shifts import _partners, filled, shifted
from counterpart.errors import UserError
from counterpart.seeding import Keys

N, SIZE = 12, 8


@pytest.fixture
def images():
    """Image i is all grey level 100 + 9 i; objects are 4 x 4, of two parts, at a place of their own."""
    pixels = (100 + 9 * torch.arange(N))[:, None, None, None].expand(N, 3, SIZE, SIZE).byte()
    masks = torch.zeros(N, SIZE, SIZE, dtype=torch.uint8)
    for i in range(N):
        left = i % 4
        masks[i, 2:4, left : left + 4], masks[i, 4:6, left : left + 4] = 1, 2
    there = torch.arange(N) != 5
    return ImageSet(
        "levels", "test", ("a", "b", "c"), torch.arange(N) % 3, torch.arange(N), "0" * 12, (3, SIZE, SIZE),
        pixels.clone(), parts=Parts({"a": {"x": 1, "y": 2}, "b": {}, "c": {}}, 2, there, masks),
    )  # fmt: skip


def test_an_object_stands_before_the_background_of_another_class(images):
    made = shifted(images, "backgrounds")
    assert len(made) == N - 1  # without the image that has no mask
    mine = torch.where(made.index[:, None, None] >= 0, made.read_parts(torch.arange(N - 1)) > 0, False)
    read = made.read(torch.arange(N - 1))[:, 0].long()
    lent = set()
    for image, inside, index, label in zip(
        read, mine, made.index.tolist(), made.labels.tolist(), strict=True
    ):
        assert image[inside].unique().tolist() == [100 + 9 * index]
        [level] = image[~inside].unique().tolist()
        assert (level - 100) // 9 % 3 != label
        lent.add((level - 100) // 9)
    assert len(lent) > 3
    assert 5 not in lent


def test_no_object_is_left_in_the_lent_background(images):
    """Objects are white, all else is dark: what is white after the exchange is the image's own object."""
    object_ = images.read_parts(torch.arange(N)) > 0
    white = replace(images, pixels=torch.where(object_[:, None], 255, 40).expand(N, 3, SIZE, SIZE).byte())
    made = shifted(white, "backgrounds")
    rows = torch.arange(len(made))
    assert torch.equal(made.read(rows)[:, 0] > 128, made.read_parts(rows) > 0)


def test_a_surface_is_of_another_class_and_as_bright_as_the_part_was(images):
    made = shifted(images, "textures")
    # Levels are even, so that a part that is lit as before looks as before.
    assert (made.read(torch.arange(N - 1)).long() - images.subset(made.index).pixels.long()).abs().max() <= 1
    halves = images.pixels.clone()
    halves[:, 0] = 0  # other colours show
    coloured = replace(
        images, pixels=torch.where((images.labels == 0)[:, None, None, None], images.pixels, halves)
    )
    made = shifted(coloured, "textures")
    read, parts = made.read(torch.arange(N - 1)), made.read_parts(torch.arange(N - 1))
    of_first = made.labels == 0
    assert (read[of_first][:, 0][parts[of_first] > 0] == 0).all()
    assert (read[of_first][:, 0][parts[of_first] == 0] > 0).all()


def test_what_is_read_does_not_depend_on_the_batch(images):
    made = shifted(images, "backgrounds")
    whole = made.read(torch.arange(N - 1))
    assert torch.equal(made.read(torch.tensor([7, 2])), whole[[7, 2]])
    assert torch.equal(made.subset(torch.tensor([7, 2])).read(torch.tensor([1])), whole[[2]])


def test_it_is_another_data_set(images):
    made = shifted(images, "backgrounds")
    assert made.name == "levels with other backgrounds"
    assert made.fingerprint != shifted(images, "textures").fingerprint != images.fingerprint
    assert shifted(images, "none") is images


def test_partners_are_of_every_other_class():
    labels = torch.arange(300) % 3
    found = _partners(labels, Keys(0, "t", torch.arange(300)))
    assert (labels[found] != labels).all()
    assert len(found.unique()) > 150
    assert [len(labels[found][labels == k].unique()) for k in range(3)] == [2, 2, 2]


def test_a_hole_takes_the_colour_around_it():
    ramp = torch.linspace(0, 1, 9).expand(1, 2, 9, 9).clone()
    hole = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    hole[:, :, 3:6, 3:6] = True
    spoiled = torch.where(hole, 7.0, ramp)
    made = filled(spoiled, hole)
    assert torch.equal(made[~hole.expand_as(made)], ramp[~hole.expand_as(ramp)])
    assert (made - ramp).abs().max() < 0.25  # two pixels of the ramp; the spoiled ones are far out
    torch.testing.assert_close(filled(spoiled, torch.ones_like(hole)), torch.full_like(ramp, 0.5))


def test_what_has_no_masks_is_refused(images):
    with pytest.raises(
        UserError,
        match=r"data\.shift textures needs images with part masks, and levels has none: use data\.name",
    ):
        shifted(replace(images, parts=None), "textures")
    with pytest.raises(
        UserError, match=r"needs masks of two classes or more in the test split of levels.*: add masks"
    ):
        shifted(images.subset(torch.tensor([0, 3, 6])), "backgrounds")
