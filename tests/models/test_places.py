import pytest
import torch

from counterpart.models.places import Places, places_of


@pytest.mark.parametrize(
    ("shape", "size", "order", "prefix", "expected"),
    [
        ((2, 64, 8, 8), (32, 32), "NCHW", 0, Places("NCHW", (8, 8))),
        ((2, 8, 8, 64), (32, 32), "NCHW", 0, Places("NHWC", (8, 8))),
        ((2, 8, 8, 8), (32, 32), "NCHW", 0, Places("NCHW", (8, 8))),  # fits both: the network's own
        ((2, 8, 8, 8), (32, 32), "NHWC", 0, Places("NHWC", (8, 8))),
        ((2, 64, 3, 4), (65, 96), "NCHW", 0, Places("NCHW", (3, 4))),
        ((2, 3, 4, 64), (65, 96), "NHWC", 0, Places("NHWC", (3, 4))),
        ((2, 17, 12), (32, 32), "NCHW", 1, Places("NLC", (4, 4), 1)),
        ((2, 30, 12), (64, 224), "NCHW", 2, None),  # 28 tokens are no 3 rows
        ((2, 30, 12), (40, 224), "NCHW", 2, Places("NLC", (2, 14), 2)),
        ((2, 17, 12), (32, 32), "NCHW", 0, None),
        ((2, 1, 12), (32, 32), "NCHW", 1, None),
        ((2, 10), (32, 32), "NCHW", 0, None),
    ],
)
def test_axes_are_told_by_the_shape_of_the_image(shape, size, order, prefix, expected):
    assert places_of(torch.Size(shape), size, order, prefix) == expected


@pytest.mark.parametrize("places", [Places("NCHW", (2, 3)), Places("NHWC", (2, 3)), Places("NLC", (2, 3), 2)])
def test_there_and_back(places):
    maps = torch.arange(24.0).view(1, 4, 2, 3)
    if places.order == "NLC":
        output = torch.cat([torch.full((1, 2, 4), -1.0), maps.flatten(2).transpose(1, 2)], dim=1)
    else:
        output = maps if places.order == "NCHW" else maps.movedim(1, -1)
    assert torch.equal(places.to_maps(output), maps)
    assert torch.equal(places.from_maps(maps, output), output)
