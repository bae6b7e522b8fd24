"""Regions: exact areas, nested shares, other images' regions, shifts."""

import math

import pytest
import torch

from counterpart.evaluation import regions
from counterpart.evaluation.regions import RegionSource, draw_regions, images_to_judge, rank_pixels
from counterpart.seeding import Keys

N, SIZE = 12, (6, 8)
PIXELS = SIZE[0] * SIZE[1]


def keys(n=N):
    return Keys(0, "test", torch.arange(n) + 7)


def some_maps(n=N):
    return torch.rand(n, *SIZE, generator=torch.Generator().manual_seed(0))


def parts_of(n=N):
    """A rectangle of its own in each image: part 1 above, part 2 below; the last image has no part 2."""
    parts = torch.zeros(n, *SIZE, dtype=torch.int16)
    for image in range(n):
        parts[image, 1:3, 1 : 3 + image % 5] = 1
        parts[image, 3:5, 2 : 4 + image % 3] = 2
    parts[-1][parts[-1] == 2] = 0
    return parts


def source(n=N):
    ranking, _ = rank_pixels(some_maps(n), SIZE, keys(n))
    there = torch.ones(n, dtype=torch.bool)
    return RegionSource(ranking, parts_of(n), there, ("background", "head", "tail"), SIZE, keys(n))


def test_the_ranking_is_that_of_the_map():
    maps = some_maps()
    ranking, flat = rank_pixels(maps, SIZE, keys())
    assert not flat.any()
    assert ranking.equal(maps.flatten(1).argsort(dim=1, descending=True))


def test_ties_are_broken_at_random_and_always_alike():
    maps = torch.zeros(N, *SIZE)
    maps[:, 0, :4] = 1
    ranking, flat = rank_pixels(maps, SIZE, keys())
    assert not flat.any()
    assert ranking[:, :4].sort(dim=1).values.equal(torch.arange(4).expand(N, -1))
    assert ranking.equal(rank_pixels(maps, SIZE, keys())[0])
    assert len({tuple(row) for row in ranking.tolist()}) == N  # each image has an order of its own


def test_flat_and_unsound_maps_are_ranked_at_random():
    maps = some_maps()
    maps[0], maps[1, 0, 0] = 3.0, torch.nan
    ranking, flat = rank_pixels(maps, SIZE, keys())
    assert flat.tolist() == [True, True] + [False] * (N - 2)
    assert ranking[:2].sort(dim=1).values.equal(torch.arange(PIXELS).expand(2, -1))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.25, 0.5])
def test_shares_are_exact_and_halves_are_disjoint(share):
    ranking, _ = rank_pixels(torch.zeros(N, *SIZE), SIZE, keys())
    top = regions.extreme_pixels(ranking, share, SIZE)
    bottom = regions.extreme_pixels(ranking, share, SIZE, lowest=True)
    wanted = max(1, round(share * PIXELS))
    assert set(top.flatten(1).sum(dim=1).tolist()) == set(bottom.flatten(1).sum(dim=1).tolist()) == {wanted}
    assert not (top & bottom).any()


def test_every_random_region_has_the_area_of_its_region_and_never_its_own_image():
    drawn = list(draw_regions(source(), regions.KINDS, (0.1, 0.3), 2))
    own = {region.name: region for region in drawn if not region.control}
    assert list(own) == [
        "everything", "top 10%", "top 30%", "bottom 10%", "bottom 30%", "object", "background", "head", "tail",
        "window 10%", "window 30%",
    ]  # fmt: skip
    random = [region for region in drawn if region.control]
    for region in random:
        assert region.mask.flatten(1).sum(dim=1).equal(own[region.name].mask.flatten(1).sum(dim=1)), (
            region.folder
        )
        assert region.positions.equal(own[region.name].positions)
    assert len({region.folder for region in drawn}) == len(drawn)
    assert len(random) == 2 * (2 * 8 + 2)  # windows have no other image's
    assert sum(len(region.positions) for region in drawn) == images_to_judge(
        source(), regions.KINDS, (0.1, 0.3), 2
    )
    assert own["tail"].positions.tolist() == list(range(N - 1))


def test_other_images_top_is_the_top_of_another_image():
    drawn = {region.folder: region for region in draw_regions(source(), ["top"], (0.1, 0.3), 2)}
    top, other = drawn["top 30%"].mask.flatten(1), drawn["top 30% other 0"].mask.flatten(1)
    owner = [next(i for i in range(N) if top[i].equal(mask)) for mask in other]
    assert sorted(owner) == list(range(N))
    assert all(i != image for image, i in enumerate(owner))
    again = drawn["top 30% other 1"].mask.flatten(1)
    assert not again.equal(other)
    for control in ("other 0", "shifted 1"):  # nested, as the regions themselves are
        small, large = drawn[f"top 10% {control}"].mask, drawn[f"top 30% {control}"].mask
        assert bool((large | ~small).all())


def test_draws_do_not_depend_on_what_else_is_asked_for():
    alone = {r.folder: r.mask for r in draw_regions(source(), ["top"], (0.3,), 1)}
    among = {r.folder: r.mask for r in draw_regions(source(), regions.KINDS, (0.1, 0.3), 3)}
    assert all(mask.equal(among[name]) for name, mask in alone.items())


def test_a_region_shrinks_to_its_deepest_pixels_and_grows_to_its_nearest():
    square = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    square[..., 2:7, 2:7] = True
    [shrunk] = regions.with_area(square, torch.tensor([9]), keys(1))
    assert shrunk[0].nonzero().aminmax() == (torch.tensor(3), torch.tensor(5))
    [grown] = regions.with_area(square, torch.tensor([45]), keys(1))
    cross = square[0, 0].clone()  # the 20 pixels at distance 1 from the square
    cross[1, 2:7] = cross[7, 2:7] = True
    cross[2:7, 1] = cross[2:7, 7] = True
    assert grown[0].equal(cross)


def test_a_region_that_covers_its_image_shrinks_from_the_border():
    whole = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    [shrunk] = regions.with_area(whole, torch.tensor([25]), keys(1))
    assert shrunk[0, 1:6, 1:6].all()


def test_a_shift_is_a_roll():
    masks = parts_of()[:, None] > 0
    moved = regions.shifted(masks, keys())
    for mask, candidate in zip(masks, moved, strict=True):
        rolls = [mask.roll((down, right), (1, 2)) for down in range(SIZE[0]) for right in range(SIZE[1])]
        assert any(candidate.equal(roll) for roll in rolls)
    assert not moved.equal(masks)


def test_a_window_is_square_and_central():
    window = regions.centre_window((10, 10), 0.36)
    assert window[0, 0].nonzero().aminmax() == (torch.tensor(2), torch.tensor(7))
    assert int(window.sum()) == 36
    assert int(regions.centre_window((10, 10), 0.001).sum()) == 1


def test_a_region_of_a_single_image_has_no_random_ones():
    assert [r.folder for r in draw_regions(source(1), ["top"], (0.5,), 3)] == ["everything", "top 50%"]


def test_a_derangement_is_one_cycle():
    others = regions.derangement(keys(9))
    image, seen = 0, []
    for _ in range(9):
        image = int(others[image])
        seen.append(image)
    assert sorted(seen) == list(range(9))
    assert seen[-1] == 0
    assert math.isclose(regions.centre_window((4, 4), 1).float().mean(), 1)
