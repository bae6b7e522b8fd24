"""Losses of parts against loops over pixels, by hand, and where annotation is missing."""

import math

import pytest
import torch
from torch.nn import functional as F

from counterpart.batch import Batch
from counterpart.contracts import PartOutput
from counterpart.losses.segmentation import PART_LOSSES, centroid, part_cross_entropy, segmentation
from counterpart.part_maps import ROWS, centroids

CLASSES = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def batch(generator):
    """Four images of 12 x 8 pixels, the third one without annotation."""
    parts = torch.randint(0, 5, (4, 12, 8), generator=generator)
    there = torch.tensor([True, True, False, True])
    parts[~there] = 0
    images, labels = torch.zeros(4, 3, 12, 8), torch.tensor([0, 1, 1, 0])
    return Batch(images, labels, torch.arange(4), parts=parts, has_parts=there)


@pytest.fixture
def output(generator):
    """Part logits on a grid of 3 x 4 cells."""
    part_logits = torch.randn(4, 5, 3, 2, generator=generator)
    return PartOutput(torch.zeros(4, 2), part_logits.requires_grad_())


def enlarged(output, mode):
    corners = {} if mode == "nearest" else {"align_corners": True}
    return F.interpolate(output.part_logits, (12, 8), mode=mode, **corners)


def test_each_cell_answers_for_its_pixels(output, batch):
    """The same as logits repeated over the pixels of a cell, without making them."""
    found = segmentation(output, batch, CLASSES, full_resolution=False)
    for image in (0, 1, 3):
        logits, total = enlarged(output, "nearest")[image], 0.0
        for y in range(12):
            for x in range(8):
                total -= logits[:, y, x].softmax(dim=0)[batch.parts[image, y, x]].log()
        torch.testing.assert_close(found[image], total / 96)
    assert found[2] == 0


def test_at_full_resolution_it_is_that_of_the_enlarged_logits(output, batch):
    found = segmentation(output, batch, CLASSES, full_resolution=True)
    plain = part_cross_entropy(output.part_logits, batch.parts, batch.has_parts, True)
    torch.testing.assert_close(plain, found)  # no pixel counts more than another
    expected = F.cross_entropy(enlarged(output, "bilinear"), batch.parts, reduction="none").mean(dim=(1, 2))
    torch.testing.assert_close(found, expected * batch.has_parts)


@pytest.mark.parametrize("full", [False, True])
def test_the_background_may_weigh_less(full, output, batch):
    """The weighted mean over each image's own pixels, which torch has for a single image."""
    weighed = segmentation(output, batch, CLASSES, full, background_weight=0.2)
    logits = enlarged(output, "bilinear" if full else "nearest")
    weights = torch.tensor([0.2, 1, 1, 1, 1])
    for image in (0, 1, 3):
        alone = slice(image, image + 1)
        expected = F.cross_entropy(logits[alone], batch.parts[alone], weights)
        torch.testing.assert_close(weighed[image], expected)
    assert weighed[2] == 0
    assert not torch.allclose(weighed, segmentation(output, batch, CLASSES, full))


@pytest.mark.parametrize("full", [False, True])
def test_an_image_of_background_alone_keeps_its_loss(full, output, batch):
    nothing = Batch(batch.images, batch.labels, batch.index, torch.zeros_like(batch.parts), batch.has_parts)
    usual = segmentation(output, nothing, CLASSES, full)
    torch.testing.assert_close(segmentation(output, nothing, CLASSES, full, background_weight=1e-6), usual)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", PART_LOSSES)
def test_an_image_without_annotation_has_no_loss_and_no_gradient(name, full, output, batch):
    PART_LOSSES[name](output, batch, CLASSES, full).sum().backward()
    gradient = output.part_logits.grad.abs().sum(dim=(1, 2, 3))
    assert gradient.isfinite().all()
    assert (gradient > 0).tolist() == batch.has_parts.tolist()


@pytest.mark.parametrize("name", PART_LOSSES)
def test_a_batch_without_any_annotation_is_nothing_special(name, output, batch):
    nothing = Batch(batch.images, batch.labels, batch.index, batch.parts, torch.zeros(4, dtype=torch.bool))
    loss = PART_LOSSES[name](output, nothing, CLASSES, False).mean()
    loss.backward()
    assert loss == 0
    assert output.part_logits.grad.abs().sum() == 0


@pytest.mark.parametrize("name", ["segmentation", "centroids"])
def test_the_loss_of_an_image_does_not_depend_on_the_others(name, output, batch):
    whole = PART_LOSSES[name](output, batch, CLASSES, False)
    alone = [
        PART_LOSSES[name](
            PartOutput(output.logits[i : i + 1], output.part_logits[i : i + 1]),
            batch.select(slice(i, i + 1)),
            CLASSES,
            False,
        )
        for i in range(4)
    ]
    torch.testing.assert_close(whole, torch.cat(alone))


def test_annotation_of_all_images_need_not_be_said(output, batch):
    everywhere = Batch(batch.images, batch.labels, batch.index, batch.parts)
    assert (segmentation(output, everywhere, CLASSES, False) > 0).all()
    with pytest.raises(ValueError, match="needs a batch with annotated parts"):
        segmentation(output, Batch(batch.images, batch.labels, batch.index), CLASSES, False)


def test_centroids_at_full_resolution_are_those_of_the_enlarged_logits(output, batch):
    """Images of 12 x 8 pixels: neither side may stand for the other."""
    shares = enlarged(output, "bilinear").softmax(dim=1)[:, 1:]
    across, down = ((torch.arange(size) + 0.5) * 2 / size - 1 for size in (8, 12))
    mass = shares.sum(dim=(2, 3))
    centres = (shares.sum(dim=2) @ across / mass, shares.sum(dim=3) @ down / mass)
    true = centroids(batch.parts, 4).nan_to_num()
    apart = (torch.stack(centres, dim=2) - true).square().sum(dim=(1, 2)) / 4
    classes = torch.stack([mass[:, :2].sum(dim=1), mass[:, 2:].sum(dim=1)], dim=1) / mass.sum(
        dim=1, keepdim=True
    )
    expected = apart + F.cross_entropy(classes, batch.labels, reduction="none")
    found = centroid(output, batch, CLASSES, True)
    torch.testing.assert_close(found, expected * batch.has_parts, rtol=2e-5, atol=0)


def test_the_published_centroid_loss_is_a_mean_over_the_parts_of_the_batch(output, batch):
    """So that an image's distances weigh less where others have more parts."""
    published = PART_LOSSES["centroids-published"]
    true = batch.parts.clone()
    true[1] = torch.where(true[1] == 1, 1, 0)
    sparse = Batch(batch.images, batch.labels, batch.index, true, batch.has_parts)
    level = PartOutput(
        output.logits, torch.zeros_like(output.part_logits)
    )  # all centres are 0 and all masses alike
    predicted = centroids(true, 4).nan_to_num().square().sum(dim=(1, 2))
    present = 4 + 1 + 4  # of the three annotated images
    found = published(level, sparse, CLASSES, False)
    expected = predicted * 4 / present + math.log(2)
    torch.testing.assert_close(found, torch.where(batch.has_parts, expected, 0.0))


def test_strips_of_a_tall_image_add_up(generator):
    """More rows than one strip has."""
    part_logits = torch.randn(1, 3, 5, 2, generator=generator)
    parts = torch.randint(0, 3, (1, 2 * ROWS + 3, 4), generator=generator)
    tall = Batch(torch.zeros(1, 3, *parts.shape[1:]), torch.tensor([0]), torch.tensor([0]), parts=parts)
    large = F.interpolate(part_logits, parts.shape[1:], mode="bilinear", align_corners=True)
    found = segmentation(PartOutput(torch.zeros(1, 2), part_logits), tall, CLASSES, full_resolution=True)
    torch.testing.assert_close(found, F.cross_entropy(large, parts, reduction="none").mean(dim=(1, 2)))


def one_hot(parts, sharpness=60.0):
    return sharpness * F.one_hot(parts, 5).movedim(-1, 1).float()


@pytest.mark.parametrize("published", [False, True])
def test_the_centroid_loss_by_hand(published):
    """One part of class 0 at column 0 and annotated at column 6 of 8: 1.5 apart on x alone, a wrong axis would show."""
    said, true = torch.zeros(2, 1, 4, 8, dtype=torch.long)
    said[0, 1, 0], true[0, 1, 6] = 1, 1
    batch = Batch(torch.zeros(1, 3, 4, 8), torch.tensor([0]), torch.tensor([0]), parts=true)
    loss = centroid(PartOutput(torch.zeros(1, 2), one_hot(said)), batch, CLASSES, False, published=published)
    # All mass is class 0's: its logit is 1, or 1 / 32 of the pixels, and the other's is 0.
    logit, share = (1 / 32, 1) if published else (1, 4)
    expected = 1.5**2 / share + math.log(1 + math.exp(-logit))
    torch.testing.assert_close(loss, torch.tensor([expected]), rtol=2e-3, atol=1e-4)


def test_centroids_meet_along_each_axis():
    """A part moved along y costs as much as one moved as far along x."""
    base = torch.zeros(1, 8, 8, dtype=torch.long)
    base[0, 2, 5] = 1
    right, down = torch.zeros_like(base), torch.zeros_like(base)
    right[0, 2, 7], down[0, 4, 5] = 1, 1
    costs = []
    for moved in (right, down, base):
        batch = Batch(torch.zeros(1, 3, 8, 8), torch.tensor([0]), torch.tensor([0]), parts=moved)
        costs.append(float(centroid(PartOutput(torch.zeros(1, 2), one_hot(base)), batch, CLASSES, False)))
    assert costs[0] == pytest.approx(costs[1], abs=1e-4)
    assert costs[0] - costs[2] == pytest.approx(0.5**2 / 4, abs=1e-3)
    swapped = base.mT.contiguous()
    batch = Batch(torch.zeros(1, 3, 8, 8), torch.tensor([0]), torch.tensor([0]), parts=swapped)
    cost = float(centroid(PartOutput(torch.zeros(1, 2), one_hot(base)), batch, CLASSES, False))
    assert cost > costs[2] + 0.2  # a swap of axes is no match
