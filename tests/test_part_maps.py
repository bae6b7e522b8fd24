"""Maps of parts against plain loops, and problems solvable by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from counterpart.part_maps import (
    ROWS,
    boxes,
    centroids,
    interpolation,
    part_counts,
    pooling,
    predicted_parts,
    strips,
)


@pytest.fixture
def maps(generator):
    return torch.randn(2, 5, 9, 7, generator=generator)


@pytest.mark.parametrize("size", [(36, 28), (9, 7), (20, 7), (9, 21), (33, 50)])
def test_strips_are_the_bilinear_enlargement(maps, size):
    pieces = strips(maps, size, lambda strip, rows: (strip,))
    expected = F.interpolate(maps, size, mode="bilinear", align_corners=True)
    torch.testing.assert_close(torch.cat([p for (p,) in pieces], dim=2), expected, rtol=1e-5, atol=1e-5)
    assert max(p.shape[2] for (p,) in pieces) <= max(ROWS, 9)


def test_strips_have_the_gradient_of_the_enlargement(maps):
    """Of a nonlinear function, whose intermediate values are made anew in the backward pass."""
    ours, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    sums = strips(ours, (36, 28), lambda strip, rows: (strip.softmax(1).square().sum(),))
    sum(s for (s,) in sums).backward()
    whole = F.interpolate(theirs, (36, 28), mode="bilinear", align_corners=True)
    whole.softmax(1).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def test_nothing_of_full_size_is_kept_for_the_backward_pass(maps):
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    leaf = maps.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        sums = strips(leaf, (144, 112), lambda strip, rows: (strip.softmax(1).square().sum(),))
        total = sum(s for (s,) in sums)
        assert max(kept, default=0) <= max(maps.numel(), 144 * 9)
    total.backward()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize(("short", "long"), [(1, 4), (2, 2), (3, 9), (56, 224)])
def test_a_row_is_interpolated_between_its_ends(short, long):
    matrix = interpolation(short, long)
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(long))
    line = matrix @ torch.arange(short, dtype=torch.float32)
    torch.testing.assert_close(line, torch.linspace(0, short - 1, long) if short > 1 else torch.zeros(4))


@pytest.mark.parametrize(("length", "cells"), [(8, 4), (7, 3), (5, 8), (224, 32)])
def test_pooling_is_torchs(length, cells, generator):
    row = torch.randn(1, 1, length, generator=generator)
    torch.testing.assert_close(row @ pooling(length, cells).mT, F.adaptive_avg_pool1d(row, cells))


def test_the_box_of_one_bright_pixel():
    """Part 1 on row 1, column 6 of 4 x 8: to the right of the centre and above it, with no spread."""
    logits = torch.zeros(1, 3, 4, 8)
    logits[:, 0], logits[0, :, 1, 6] = 40.0, torch.tensor([0.0, 40.0, 0.0])
    score, x, y, spread_x, spread_y = boxes(logits, (4, 8))[0, 0].tolist()
    assert (x, y) == pytest.approx((13 / 8 - 1, 3 / 4 - 1), abs=1e-4)
    assert (spread_x, spread_y) == pytest.approx(
        (0, 0), abs=3e-3
    )  # a little mass lies on every row and column
    assert score == pytest.approx(40, abs=1e-3)  # the only foreground pixel's logit


def test_a_mirrored_image_has_a_mirrored_box(maps):
    there, back = boxes(maps, (9, 7)), boxes(maps.flip(3), (9, 7))
    torch.testing.assert_close(back, there * torch.tensor([1, -1, 1, 1, 1]), rtol=1e-4, atol=1e-5)


def test_a_part_without_mass_has_a_box_and_a_gradient():
    """Every share of part 2 underflows to 0: it sits in the middle."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 2] = -200.0
    leaf = logits.requires_grad_()
    found = boxes(leaf, (4, 4))
    assert found[0, 1, 1:3].tolist() == pytest.approx([0, 0], abs=1e-6)
    found.sum().backward()
    assert leaf.grad.isfinite().all()


def test_centroids_have_x_to_the_right_and_y_downwards():
    parts = torch.zeros(1, 4, 8, dtype=torch.long)
    parts[0, 1, 6] = 1
    parts[0, 3, :] = 2
    found = centroids(parts, 3)
    assert found[0, 0].tolist() == [13 / 8 - 1, 3 / 4 - 1]
    assert found[0, 1].tolist() == [0, 7 / 4 - 1]
    assert found[0, 2].isnan().all()
    # The same place as that of the box of a prediction that is right.
    logits = 60.0 * F.one_hot(parts, 4).movedim(-1, 1).float()
    torch.testing.assert_close(boxes(logits, (4, 8))[:, :2, 1:3], found[:, :2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(2, 4), (3, 3), (6, 8), (1, 8)])
def test_part_counts_are_those_of_loops(size, generator):
    parts = torch.randint(0, 4, (2, 6, 8), generator=generator, dtype=torch.uint8)
    expected = np.zeros((2, 4, *size))
    for b in range(2):
        for y in range(6):
            for x in range(8):
                expected[b, parts[b, y, x], y * size[0] // 6, x * size[1] // 8] += 1
    assert np.array_equal(part_counts(parts, 3, size).numpy(), expected)


def test_predicted_parts_are_the_likeliest_of_the_enlarged_maps(maps):
    whole = F.interpolate(maps, (36, 28), mode="bilinear", align_corners=True)
    found = predicted_parts(maps, (36, 28))
    assert (found == whole.argmax(dim=1)).float().mean() > 0.999  # up to rounding at ties
    assert torch.equal(predicted_parts(maps, (9, 7)), maps.argmax(dim=1))
