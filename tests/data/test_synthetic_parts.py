"""Drawn objects with parts: the same for a seed, balanced, and of no use to a classifier of colours."""

import pytest
import torch

from counterpart.data import load_synthetic_parts
from counterpart.data.synthetic_parts import NAMES, OBJECTS, Ellipse, Polygon
from counterpart.errors import UserError


@pytest.fixture(scope="module")
def splits():
    return load_synthetic_parts(train=240, test=120, size=32)


def test_every_object_shows_its_parts_and_no_others(splits):
    for label, mask in zip(splits.test.labels, splits.test.parts.masks, strict=True):
        own = set(NAMES[splits.test.classes[label]].values())
        shown = set(mask.unique().tolist()) - {0}
        assert shown <= own
        assert len(shown) >= len(own) - 1  # a mast may be narrower than a pixel
        assert 0.03 < (mask > 0).float().mean() < 0.7


def test_ids_run_from_1_over_all_classes():
    ids = [number for parts in NAMES.values() for number in parts.values()]
    assert ids == list(range(1, 19))
    assert NAMES["car"] == {"window": 4, "body": 5, "wheel": 6}
    assert list(NAMES) == sorted(OBJECTS)


def test_images_are_balanced_and_the_same_for_a_seed(splits):
    assert torch.bincount(splits.train.labels).tolist() == [36] * 6
    assert torch.bincount(splits.test.labels).tolist() == [20] * 6
    few = load_synthetic_parts(train=12, test=6, size=32)
    assert torch.equal(few.test.pixels, splits.test.pixels[:6])
    assert torch.equal(few.test.parts.masks, splits.test.parts.masks[:6])
    other = load_synthetic_parts(train=12, test=6, size=32, seed=1)
    assert not torch.equal(other.test.pixels, few.test.pixels)
    assert not torch.equal(few.train.pixels[:6], few.test.pixels)


def test_the_size_is_free_down_to_what_shows_parts():
    assert load_synthetic_parts(train=12, test=6, size=64).test.pixels.shape == (6, 3, 64, 64)
    with pytest.raises(UserError, match="size 8: synthetic-parts needs 16"):
        load_synthetic_parts(size=8)


def test_a_part_has_the_colour_that_was_drawn_for_it(splits):
    """Grain apart, the pixels of a part share a colour, and background does not have it."""
    for image, mask in zip(splits.test.pixels[:30], splits.test.parts.masks[:30], strict=True):
        for part in set(mask.unique().tolist()) - {0}:
            of_part = image[:, mask == part].float()
            # 0.06 of grain, rounded, on either side, unless clipped
            assert (of_part.amax(dim=1) - of_part.amin(dim=1)).max() <= 2 * 0.06 * 255 + 1


def test_colours_do_not_give_the_class_away(splits):
    """The nearest class by mean colour, of the image or of the object, is right about as often as chance."""

    def features(images):
        pixels = images.pixels.float() / 255
        inside = (images.parts.masks > 0)[:, None]
        of_object = (pixels * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))
        return pixels.mean(dim=(2, 3)), (of_object - 0.5).abs()  # half of the images are inverted

    labels = splits.train.labels
    for train, test in zip(features(splits.train), features(splits.test), strict=True):
        centres = torch.stack([train[labels == k].mean(dim=0) for k in range(6)])
        right = (torch.cdist(test, centres).argmin(dim=1) == splits.test.labels).float().mean()
        assert right < 0.35  # chance is 0.17; of 120 images


def test_shapes_by_hand():
    u = torch.tensor([0.0, 0.5, 1.1])
    assert Ellipse(0, 0, 1, 0.5).holds(u, torch.zeros(3)).tolist() == [True, True, False]
    square = Polygon(((0, 0), (1, 0), (1, 1), (0, 1)))
    assert square.holds(u, torch.tensor([0.5, 1.2, 0.5])).tolist() == [True, False, False]
    for shapes in OBJECTS.values():  # every polygon is convex and clockwise: its middle lies within
        for _, shape in shapes:
            if isinstance(shape, Polygon):
                middle = torch.tensor(shape.corners).mean(dim=0)
                assert shape.holds(middle[0], middle[1])
