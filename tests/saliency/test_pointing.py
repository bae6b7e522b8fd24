"""The pointing game: which pixel a map points at, and whether it lies in the object."""

import torch

from counterpart.saliency.pointing import pointing_hits, points_of


def peak(height, width, row, column):
    maps = torch.zeros(1, height, width)
    maps[0, row, column] = 1
    return maps


def test_a_map_points_at_the_centre_of_its_highest_cell():
    assert points_of(peak(2, 2, 0, 1), (8, 8)).tolist() == [[2, 6]]
    assert points_of(peak(3, 3, 1, 2), (9, 9)).tolist() == [[4, 7]]
    assert points_of(peak(3, 3, 2, 0), (7, 7)).tolist() == [[5, 1]]
    assert points_of(peak(4, 6, 3, 5), (4, 6)).tolist() == [[3, 5]]
    assert points_of(peak(1, 2, 0, 1), (3, 8)).tolist() == [[1, 6]]  # height and width by themselves


def test_of_equal_cells_the_first_counts():
    assert points_of(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), (4, 4)).tolist() == [[1, 3]]


def test_a_hit_lies_in_the_object_of_its_own_image():
    maps = torch.cat([peak(2, 2, 0, 1), peak(2, 2, 1, 0), peak(2, 2, 1, 1), torch.ones(1, 2, 2)])
    objects = torch.zeros(4, 8, 8, dtype=torch.bool)
    objects[0, 2, 6] = True  # the pixel itself
    objects[1, :4] = True  # the upper half, and the map points into the lower one
    objects[3] = True  # everything; but a flat map points nowhere
    hits, there = pointing_hits(maps, objects)
    assert hits.tolist() == [True, False, False, False]
    assert there.tolist() == [True, True, False, True]
