"""Convolutions without holes compute what dilated ones do, bit for bit in outputs and gradients of the images."""

import pytest
import torch
from torch import nn

from counterpart.models import create
from counterpart.models.dilation import WithoutHoles, fill_holes
from counterpart.models.inference import InferenceView


@pytest.mark.parametrize(
    ("taps", "dilation", "size"),
    [((5, 5), (2, 2), (6, 6)), ((3, 3), (12, 12), (6, 6)), ((3, 3), (2, 4), (7, 9)), ((3, 5), (3, 1), (4, 16)),
     ((3, 3), (6, 6), (14, 28)), ((3, 3), (5, 5), (1, 6)), ((3, 3), (5, 5), (6, 5))],
)  # fmt: skip
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_the_same(taps, dilation, size, bias):
    padding = tuple(step * (count // 2) for step, count in zip(dilation, taps, strict=True))
    dilated = nn.Conv2d(8, 8, taps, padding=padding, dilation=dilation, groups=8, bias=bias)
    other = nn.Sequential(nn.Conv2d(8, 8, taps, padding=padding, dilation=dilation, groups=8, bias=bias))
    other.load_state_dict({f"0.{name}": value for name, value in dilated.state_dict().items()})
    fill_holes(other)
    assert type(other[0]) is WithoutHoles
    outcomes = []
    for model in (dilated, other):
        maps = torch.rand(3, 8, *size, generator=torch.Generator().manual_seed(0)).requires_grad_()
        output = model(maps)
        output.square().sum().backward()
        outcomes.append((output.detach(), maps.grad))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2, "padding": 2, "groups": 1},
        {"dilation": 1, "padding": 1, "groups": 4},
        {"dilation": 2, "padding": 1, "groups": 4},
        {"dilation": 2, "padding": 2, "groups": 4, "stride": 2},
        {"dilation": 2, "padding": 2, "groups": 4, "padding_mode": "reflect"},
        {"dilation": 2, "padding": "same", "groups": 4},
    ],
)
def test_other_convolutions_stay_as_they_are(options):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, **options), nn.Conv2d(4, 8, 3, dilation=2, padding=2, groups=4))
    fill_holes(model)
    assert {type(module) for module in model} == {nn.Conv2d}


def test_a_view_of_a_segmenter_has_no_holes_and_answers_as_the_model():
    parts = {"part_classes": [0, 1], "encoder": "timm/test_efficientnet"}
    model = create("parts/downsampled", 2, image_size=64, parts=parts).eval()
    view, images = InferenceView(model), torch.rand(2, 3, 64, 64)
    assert any(type(module) is WithoutHoles for module in view._copy.modules())
    assert not any(type(module) is WithoutHoles for module in model.modules())
    torch.testing.assert_close(view(images), model(images), rtol=1e-4, atol=1e-4)
