"""Masks: how many pixels get which radius, and what a flat map means."""

import pytest
import torch

from counterpart.importance.masks import (
    centre_mask,
    file_mask,
    jet,
    mean_preserving_mask,
    paper_mask,
    published_mask,
    quadrant_mask,
    quantile_mask,
    radius_plane,
    soft_mask,
)
from counterpart.seeding import Keys

EPS, LOW = 8 / 255, 7 / 255
KEYS = Keys(0, "masks", torch.arange(6))
OF_MAPS = {
    "paper": paper_mask,
    "quantile": lambda maps, size: quantile_mask(maps, size, KEYS[: len(maps)], 0.25),
    "soft": soft_mask,
    "mean-preserving": lambda maps, size: mean_preserving_mask(maps, size, KEYS[: len(maps)], 0.25),
    "published-code": published_mask,
}


@pytest.fixture
def maps(generator):
    return torch.rand(6, 4, 4, generator=generator)


def test_radii_are_exact_at_both_ends():
    share = torch.tensor([0.0, 0.5, 1.0, 4.0]).view(1, 1, 2, 2)
    plane = radius_plane(paper_mask(torch.eye(2)[None], (2, 2))._replace(share=share), EPS, LOW)
    assert plane.flatten()[[0, 2]].tolist() == torch.tensor([LOW, EPS]).tolist()
    torch.testing.assert_close(255 * plane.flatten(), torch.tensor([7, 7.5, 8, 11]))


def test_a_pixel_is_important_one_standard_deviation_above_the_mean():
    maps = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
    share, flat = paper_mask(maps, (2, 2))
    # mean .25, population deviation .433: only 1 exceeds .683; mean 2.5, deviation 1.118: only 4 exceeds 3.618
    assert share.tolist() == [[[[0, 0], [0, 1]]], [[[0, 0], [0, 1]]]]
    assert not flat.any()


def test_the_deviation_is_of_all_pixels_and_a_pixel_must_exceed_it():
    maps = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.1]]])
    share, flat = paper_mask(maps, (2, 2))
    # mean .5, deviation .5: 1 is the threshold. Mean .525, deviation .526 (of a sample: .608): 1.1 exceeds 1.051.
    assert share.tolist() == [[[[0, 0], [0, 0]]], [[[0, 0], [0, 1]]]]
    assert not flat.any()


def test_a_map_is_flat_where_its_deviation_is_a_hundred_thousandth_of_its_scale():
    maps = torch.ones(2, 2, 2)
    maps[:, 0, 0] -= torch.tensor(
        [2.15e-5, 2.4e-5]
    )  # deviations of .93e-5 (of a sample: 1.07e-5) and 1.04e-5
    assert paper_mask(maps, (2, 2)).flat.tolist() == [True, False]


def test_masks_ignore_scale_and_offset(maps):
    for name, mask in OF_MAPS.items():
        first, moved = mask(maps, (32, 32)).share, mask(7 * maps + 3, (32, 32)).share
        different = (first - moved).abs() > 0.01
        assert different.float().mean() < 2e-3, name  # rounding at a threshold only
    assert 0.05 < paper_mask(maps, (32, 32)).share.mean() < 0.3


def test_masks_are_resized_before_they_are_standardised():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1
    rows, columns = paper_mask(maps, (32, 32)).share[0, 0].nonzero().float().mean(dim=0).tolist()
    assert abs(rows - 11.5) < 0.6  # the centre of cell (1, 2) in pixels
    assert abs(columns - 19.5) < 0.6


@pytest.mark.parametrize("name", OF_MAPS)
def test_flat_and_broken_maps_mean_the_full_budget(name, maps):
    maps[0] = 0
    maps[1] = 0.7
    maps[2, 1, 1] = torch.nan
    maps[3, 1, 1] = torch.inf
    mask = OF_MAPS[name](maps, (16, 16))
    assert mask.flat.tolist() == [True, True, True, True, False, False]
    plane = radius_plane(mask, EPS, LOW)
    assert (plane[:4] == torch.tensor(EPS)).all()
    assert plane[4].unique().numel() > 1
    assert plane.shape == (6, 3 if name == "published-code" else 1, 16, 16)


@pytest.mark.parametrize(
    ("size", "quantile", "count"), [((16, 16), 0.25, 64), ((5, 7), 0.1, 4), ((4, 4), 0.01, 1)]
)
def test_the_quantile_mask_has_the_same_count_in_every_image(maps, size, quantile, count):
    maps[1] = 0  # almost nothing is important: the rest is a tie
    maps[1, 0, 0] = 1
    share = quantile_mask(maps, size, KEYS, quantile).share
    assert share.flatten(1).sum(dim=1).tolist() == [count] * 6
    assert set(share.unique().tolist()) == {0, 1}


def test_the_quantile_mask_takes_the_largest():
    maps = torch.arange(16.0).view(1, 4, 4)
    assert quantile_mask(maps, (4, 4), KEYS[:1], 0.25).share.flatten().nonzero()[:, 0].tolist() == [
        12,
        13,
        14,
        15,
    ]


def test_ties_favour_no_side_and_are_drawn_from_keys():
    maps = torch.zeros(400, 4, 4)
    maps[:, 2, 2] = 1
    keys = Keys(0, "ties", torch.arange(400))
    share = quantile_mask(maps, (4, 4), keys, 0.25).share
    assert (share[:, 0, 2, 2] == 1).all()
    others = share.mean(dim=0).flatten()[torch.arange(16) != 10]
    assert (others - 3 / 15).abs().max() < 0.08  # 4 standard deviations of 400 draws
    assert torch.equal(share[7:9], quantile_mask(maps[7:9], (4, 4), keys[7:9], 0.25).share)


def test_the_soft_mask_follows_the_rank_and_has_one_mean(maps):
    ranked = torch.tensor([[[3.0, 9.0], [1.0, 4.0]], [[2.0, 2.0], [1.0, 5.0]]])
    shares = soft_mask(ranked, (2, 2)).share.flatten(1)
    torch.testing.assert_close(shares, torch.tensor([[1 / 3, 1, 0, 2 / 3], [0.5, 0.5, 0, 1]]))
    maps[0] = 0
    maps[0, 0, 0] = 1  # most pixels tie, and the mean is still the same
    means = soft_mask(maps, (16, 16)).share.mean(dim=(1, 2, 3))
    torch.testing.assert_close(means, torch.full((6,), 0.5))


def test_the_mean_preserving_mask_keeps_the_mean(maps):
    plane = radius_plane(mean_preserving_mask(maps, (32, 32), KEYS, 0.25), EPS, LOW)
    torch.testing.assert_close(plane.mean(dim=(1, 2, 3)), torch.full((6,), EPS))
    torch.testing.assert_close(255 * plane.unique(), torch.tensor([7.0, 11.0]))
    assert (plane > EPS).flatten(1).sum(dim=1).tolist() == [256] * 6
    odd = radius_plane(mean_preserving_mask(maps, (5, 7), KEYS, 0.3), EPS, LOW)  # no whole number of pixels
    torch.testing.assert_close(odd.mean(dim=(1, 2, 3)), torch.full((6,), EPS))


def test_jet_is_matplotlibs():
    matplotlib = pytest.importorskip("matplotlib")
    values = torch.cat([torch.arange(256) / 256 + 1 / 512, torch.tensor([0.0, 1.0, 1.2])])
    expected = torch.from_numpy(matplotlib.colormaps["jet"](values.double().numpy())[:, :3])
    assert (jet(values.double()) - expected).abs().max() < 1e-12


def test_the_published_mask_spares_the_peak():
    """Full budget by importance h: blue .258-.634, green .570-.832, red .774-.966 where the threshold is .80."""
    maps = torch.linspace(0, 1, 1024).view(1, 32, 32)
    share = published_mask(maps, (32, 32)).share[0].flatten(1)
    assert share[:, 1000:].sum() == 0  # the most important pixels
    assert share[:, :200].sum() == 0
    assert (share.sum(dim=0) < 3).all()  # never all channels of a pixel
    assert not (share[0] * share[2]).any()  # red and blue never together
    red, green, blue = (channel.nonzero().float().mean() for channel in share)
    assert blue < green < red


def test_the_published_mask_is_one_standard_deviation_above_the_coloured_mean(maps):
    numpy, matplotlib = pytest.importorskip("numpy"), pytest.importorskip("matplotlib")
    maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(1))
    share = published_mask(maps, (8, 8)).share
    for row, heat in enumerate(maps.double().numpy()):
        scaled = (heat - heat.min()) / (heat.max() - heat.min())
        coloured = matplotlib.colormaps["jet"](scaled**2)[..., :3]
        expected = coloured > coloured.mean() + numpy.std(coloured)
        assert (share[row].movedim(0, -1).numpy() != expected).sum() <= 1  # float32 at the edge of a colour


@pytest.mark.parametrize("quadrant", ["upper-left", "upper-right", "lower-left", "lower-right"])
def test_a_quadrant_has_the_small_radius(quadrant):
    images = torch.zeros(2, 3, 6, 8)
    share, flat = quadrant_mask(images, quadrant)
    expected = torch.ones(2, 1, 6, 8)
    rows = slice(0, 3) if "upper" in quadrant else slice(3, 6)
    expected[:, :, rows, slice(0, 4) if "left" in quadrant else slice(4, 8)] = 0
    assert torch.equal(share, expected)
    assert not flat.any()
    assert (quadrant_mask(torch.zeros(1, 1, 5, 5), quadrant).share == 0).sum() == 4


def test_the_centre_has_as_many_pixels_as_the_quantile(maps):
    share, flat = centre_mask(torch.zeros(3, 1, 8, 8), 0.25)
    assert share.flatten(1).sum(dim=1).tolist() == [16, 16, 16]
    assert not flat.any()
    assert share[0, 0, 2:6, 2:6].sum() >= 12  # a disc in the middle
    assert share[0, 0, 0].sum() + share[0, 0, 7].sum() == 0
    for size, quantile in (((8, 8), 0.25), ((5, 7), 0.1), ((9, 4), 0.6)):
        same = quantile_mask(maps, size, KEYS, quantile).share[0].sum()
        assert centre_mask(torch.zeros(1, 1, *size), quantile).share.sum() == same


def test_the_centre_is_the_middle_of_both_sides():
    share = centre_mask(torch.zeros(1, 1, 4, 6), 4 / 24).share[0, 0]
    assert share.nonzero().tolist() == [[1, 2], [1, 3], [2, 2], [2, 3]]
    assert centre_mask(torch.zeros(1, 1, 5, 3), 1 / 15).share[0, 0].nonzero().tolist() == [[2, 1]]


def test_a_missing_mask_of_ones_own_is_the_full_budget(generator):
    """So that a control that averages shares meets no number above 1."""
    shares = torch.rand(6, 8, 8, generator=generator)
    shares[2] = torch.nan
    mask = file_mask(torch.rand(6, 3, 8, 8), shares)
    assert mask.flat.tolist() == [row == 2 for row in range(6)]
    assert (mask.share[2] == 1).all()
    assert torch.equal(mask.share[:2, 0], shares[:2])
