import pytest
import timm
import torch

from counterpart.models import create
from counterpart.models.recognition import recognise


@pytest.mark.parametrize(
    ("name", "width", "channels"),
    [
        ("resnet18", 8, 3),
        ("preact-resnet18", 4, 1),
        ("preact-resnet18-fast", 4, 3),
        ("wrn-10-1", 16, 3),
        ("wrn-28-2", 32, 2),
        ("dm-wrn-16-1", 16, 3),
        ("dm-preact-resnet18", 4, 3),
        ("mnist-cnn", 16, 1),
        ("small-cnn", 32, 1),
    ],
)
def test_networks_are_told_by_names_and_shapes(name, width, channels):
    with torch.device("meta"):
        state = create(name, 7, width=width, in_channels=channels, image_size=28).backbone.state_dict()
    found = recognise(state)
    assert name in found.architectures
    assert found.num_classes == 7
    assert found.options["width"] == width
    assert found.options["in_channels"] == channels
    assert found.options.get("image_size", 28) == 28


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_torchvisions_names_are_timms(name):
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=3).state_dict()
    assert recognise(state).architectures == (f"timm/{name}",)


def test_others_are_not_taken_for_ours():
    with torch.device("meta"):
        known = create("resnet18", 10, width=4).backbone.state_dict()
        deep = create("dm-preact-resnet18", 10, width=4).backbone.state_dict()
        foreign = timm.create_model("resnext50_32x4d").state_dict()
    assert recognise({}) is None
    assert recognise(known | {"layer3.2.conv1.weight": known["layer3.1.conv1.weight"]}) is None
    assert recognise(deep | {"layer_3.2.conv_2d_1.weight": torch.ones(1)}) is None
    assert recognise(known | {"linear.weight": torch.ones(3)}) is None
    assert recognise({n: t for n, t in known.items() if n != "conv1.weight"}) is None
    assert recognise({n: t for n, t in foreign.items() if not n.startswith("layer4.")}) is None
