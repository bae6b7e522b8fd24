"""Part heads against their formulas in loops over pixels, at their own and at the full resolution."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpart.models.part_heads import (
    BoundingBox,
    Downsampled,
    PartFeatures,
    PartHead,
    Pixel,
    TwoHeadedDecoder,
    TwoHeadedEncoder,
)
from counterpart.part_maps import boxes

CLASSES = (0, 2, 2, 0)  # of four parts; class 1 has none


def enlarged(maps, height, width):
    """(K, h, w) -> (K, H, W): bilinear, the corners of both grids on each other."""
    k, h, w = maps.shape
    out = np.zeros((k, height, width))
    for y in range(height):
        for x in range(width):
            v, u = y * (h - 1) / (height - 1), x * (w - 1) / (width - 1)
            top, left = min(int(v), h - 2), min(int(u), w - 2)
            a, b = v - top, u - left
            out[:, y, x] = (
                maps[:, top, left] * (1 - a) * (1 - b)
                + maps[:, top + 1, left] * a * (1 - b)
                + maps[:, top, left + 1] * (1 - a) * b
                + maps[:, top + 1, left + 1] * a * b
            )
    return out


def softmax(values):
    powers = [math.exp(v - max(values)) for v in values]
    return [p / sum(powers) for p in powers]


def shares(maps):
    """Softmax over the channels of each pixel."""
    out = np.zeros_like(maps)
    for y in range(maps.shape[1]):
        for x in range(maps.shape[2]):
            out[:, y, x] = softmax(list(maps[:, y, x]))
    return out


def downsampled(maps, pool):
    """(K, p, p): the mean share in each cell, whose borders are rounded outwards."""
    k, h, w = maps.shape
    given, out = shares(maps), np.zeros((k, pool, pool))
    for i in range(pool):
        for j in range(pool):
            rows = range(math.floor(i * h / pool), math.ceil((i + 1) * h / pool))
            columns = range(math.floor(j * w / pool), math.ceil((j + 1) * w / pool))
            for channel in range(k):
                cell = [given[channel, y, x] for y in rows for x in columns]
                out[channel, i, j] = sum(cell) / len(cell)
    return out


def bounding_boxes(maps):
    """(K - 1, 5): score, centre x and y, spread x and y of each part. Equations 1 to 4."""
    k, h, w = maps.shape
    given = shares(maps)
    out = []
    for part in range(1, k):
        weighted = foreground = mass = 0.0
        centre, spread = [0.0, 0.0], [0.0, 0.0]
        for y in range(h):
            for x in range(w):
                gate = 1 / (1 + math.exp(-(sum(maps[1:, y, x]) - maps[0, y, x])))
                weighted += gate * maps[part, y, x]
                foreground += gate
                mass += given[part, y, x]
        places = [(y, x, (2 * x + 1) / w - 1, (2 * y + 1) / h - 1) for y in range(h) for x in range(w)]
        for axis in (0, 1):
            centre[axis] = sum(given[part, p[0], p[1]] / mass * p[2 + axis] for p in places)
            variance = sum(given[part, p[0], p[1]] / mass * (p[2 + axis] - centre[axis]) ** 2 for p in places)
            spread[axis] = math.sqrt(variance)
        out.append([weighted / foreground, *centre, *spread])
    return np.array(out)


def pixel(maps, part_classes, num_classes):
    """(C,): logits of a class's parts, averaged over the pixels."""
    out = np.zeros(num_classes)
    for part, its_class in enumerate(part_classes, start=1):
        out[its_class] += sum(maps[part].flatten()) / maps[part].size
    return out


@pytest.fixture
def maps(generator):
    """Part logits of two images, 4 parts, 6 x 5 cells."""
    return 2 * torch.randn(2, 5, 6, 5, generator=generator)


def at(maps, scale):
    """The maps of one image at ``scale`` times their size, in numpy."""
    image = maps.double().numpy()
    return image if scale == 1 else enlarged(image, 6 * scale, 5 * scale)


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("pool", [1, 2, 4, 8])
def test_downsampled_features_are_mean_shares(maps, pool, scale):
    head = Downsampled(4, 3, pool=pool, scale=scale)
    found = head.pooled(PartFeatures(maps))
    assert found.shape == (2, 5, pool, pool)
    for image in range(2):
        expected = downsampled(at(maps[image], scale), pool)
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-4, atol=1e-6)
    bare = Downsampled(4, 3, pool=pool, background=False, scale=scale).pooled(PartFeatures(maps))
    assert torch.equal(bare, found[:, 1:])


@pytest.mark.parametrize("scale", [1, 4])
def test_the_image_is_pooled_beside_the_shares(maps, scale, generator):
    image = torch.rand(2, 3, 24, 20, generator=generator)
    head = Downsampled(4, 3, image_channels=3, pool=2, scale=scale)
    found = head.pooled(PartFeatures(maps, image))
    for number in range(2):
        masks = downsampled(at(maps[number], scale), 2)
        means = [
            [
                [image[number, c, 12 * i : 12 * i + 12, 10 * j : 10 * j + 10].mean() for j in (0, 1)]
                for i in (0, 1)
            ]
            for c in range(3)
        ]
        expected = np.concatenate([masks, np.array(means)])
        np.testing.assert_allclose(found[number].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 4])
def test_bounding_boxes_are_equations_1_to_4(maps, scale):
    found = boxes(maps, (6 * scale, 5 * scale))
    for image in range(2):
        expected = bounding_boxes(at(maps[image], scale))
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1, 4])
def test_pixel_logits_are_mean_logits_of_the_parts_of_a_class(maps, scale):
    head = Pixel(torch.tensor(CLASSES), 3, scale=scale)
    found = head(PartFeatures(maps))
    for image in range(2):
        expected = pixel(at(maps[image], scale), CLASSES, 3)
        np.testing.assert_allclose(found[image].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert list(head.parameters()) == []
    assert head.state_dict() == {}


def test_the_layers_behind_the_features_are_the_published_ones(maps):
    with torch.no_grad():
        head = Downsampled(4, 3, pool=2).eval()
        conv, norm, _, _, hidden, norm2, _, last = head.classifier
        assert conv.weight.shape == (25, 5, 2, 2)
        expected = norm(conv(head.pooled(PartFeatures(maps)))).relu().flatten(1)
        torch.testing.assert_close(head(PartFeatures(maps)), last(norm2(hidden(expected)).relu()))

        head = BoundingBox(4, 3).eval()
        norm, hidden, _, norm2, last = head.classifier
        found = boxes(maps, (6, 5)).flatten(1)
        assert norm.num_features == 20
        torch.testing.assert_close(head(PartFeatures(maps)), last(norm2(hidden(norm(found)).relu())))


def test_a_second_head_on_the_decoder_is_the_published_one_at_224_pixels(generator):
    """There the added pooling to 13 x 13 changes nothing."""
    features = torch.rand(1, 8, 56, 56, generator=generator)
    head = TwoHeadedDecoder(8, 3).eval()
    layers = list(head.classifier)
    assert isinstance(layers.pop(8), nn.AdaptiveAvgPool2d)
    found = head(PartFeatures(torch.zeros(1, 5, 56, 56), features=features))
    torch.testing.assert_close(found, nn.Sequential(*layers)(features))
    assert layers[-3].in_features == 1690


def test_second_heads_read_no_part_logits(maps, generator):
    features = torch.rand(2, 8, 16, 16, generator=generator)
    for head in (TwoHeadedDecoder(8, 3).eval(), TwoHeadedEncoder(8, 3).eval()):
        first = head(PartFeatures(maps, features=features))
        assert torch.equal(first, head(PartFeatures(0 * maps, features=features)))
        assert first.shape == (2, 3)


HEADS = [
    Downsampled(4, 3),
    Downsampled(4, 3, scale=4),
    BoundingBox(4, 3),
    BoundingBox(4, 3, scale=4),
    Pixel(torch.tensor(CLASSES), 3),
    Pixel(torch.tensor(CLASSES), 3, scale=4),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{type(head).__name__} x{head.scale}")
def test_gradients_reach_every_map(head: PartHead, maps):
    leaf = maps.clone().requires_grad_()
    loss = F.cross_entropy(head.eval()(PartFeatures(leaf)), torch.tensor([0, 2]))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=(0, 2, 3))[1:] > 0).all()


def test_the_final_layer_is_found():
    for head in HEADS:
        last = head.get_classifier()
        if isinstance(head, Pixel):
            assert list(last.parameters()) == []
        else:
            assert last is head.classifier[-1]
