import torch

from counterpart.importance.masks import own_mean, paper_mask, radius_plane


def test_a_pixel_is_important_one_standard_deviation_above_the_mean():
    maps = torch.tensor([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
    important, flat = paper_mask(maps, (2, 2))
    # mean .25, population deviation .433: only 1 exceeds .683; mean 2.5, deviation 1.118: only 4 exceeds 3.618
    assert important.tolist() == [[[False, False], [False, True]], [[False, False], [False, True]]]
    assert not flat.any()


def test_masks_ignore_scale_and_offset(generator):
    maps = torch.rand(16, 4, 4, generator=generator)
    first = paper_mask(maps, (32, 32)).important
    assert 0.05 < first.float().mean() < 0.3
    changed = (first != paper_mask(7 * maps + 3, (32, 32)).important).float().mean()
    assert changed < 1e-3  # rounding at the threshold only


def test_masks_are_resized_before_they_are_standardised():
    maps = torch.zeros(1, 4, 4)
    maps[0, 1, 2] = 1
    important = paper_mask(maps, (32, 32)).important[0]
    rows, columns = important.nonzero().float().mean(dim=0).tolist()
    assert abs(rows - 11.5) < 0.6  # the centre of cell (1, 2) in pixels
    assert abs(columns - 19.5) < 0.6


def test_flat_and_broken_maps_mean_the_full_budget():
    maps = torch.rand(5, 4, 4, generator=torch.Generator().manual_seed(0))
    maps[0] = 0
    maps[1] = 0.7
    maps[2, 1, 1] = torch.nan
    maps[3, 1, 1] = torch.inf
    mask = paper_mask(maps, (32, 32))
    assert mask.flat.tolist() == [True, True, True, True, False]
    plane = radius_plane(mask, 0.03, 0.02)
    assert (plane[:4] == torch.tensor(0.03)).all()
    assert set(plane[4].unique().tolist()) == {torch.tensor(0.02).item(), torch.tensor(0.03).item()}
    assert plane.shape == (5, 1, 32, 32)
    assert torch.equal(plane[4, 0] == torch.tensor(0.03), mask.important[4])


def test_the_control_keeps_each_mean_and_nothing_else(generator):
    plane = radius_plane(paper_mask(torch.rand(6, 4, 4, generator=generator), (16, 16)), 0.03, 0.02)
    control = own_mean(plane)
    assert (control.flatten(1).std(dim=1) == 0).all()
    torch.testing.assert_close(control.mean(dim=(1, 2, 3)), plane.mean(dim=(1, 2, 3)))
    assert control.flatten(1)[:, 0].unique().numel() > 1  # each image's own, not the batch's
