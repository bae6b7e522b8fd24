"""Networks by other hands: their view answers as they do, or is of a form that says why."""

import importlib
import sys
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
# The smallest of each family of torchvision's, and some of timm's that are written in their own ways.
TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32",
)  # fmt: skip
TIMM = (
    "levit_128s", "xcit_nano_12_p16_224", "coat_lite_tiny", "ghostnet_050", "tf_mobilenetv3_small_minimal_100",
    "hrnet_w18_small", "resmlp_12_224", "vovnet39a", "nf_regnet_b0", "mambaout_femto", "crossvit_tiny_240",
)  # fmt: skip


@pytest.fixture(scope="module")
def zoo():
    """The benchmark, which makes the networks and looks at them."""
    before = list(sys.path)
    sys.path.insert(0, BENCHMARKS)
    try:
        yield importlib.import_module("zoo")
    finally:
        sys.path[:] = before


def test_pictures_are_real_and_the_first_two_differ(zoo):
    images = zoo.pictures(64)
    assert images.shape == (8, 3, 64, 64)
    assert 0 <= images.min() < 0.2
    assert 0.8 < images.max() <= 1
    assert (images[0] - images[1]).abs().mean() > 0.1


def test_a_network_that_cannot_be_had_is_a_line(zoo):
    def broken(size):
        raise KeyError("no such weights")

    row = zoo.line("broken", (32, 64), broken, torch.device("cpu"))
    assert row.value is None
    assert row.details["reason"] == "KeyError: 'no such weights'"


def test_a_view_that_is_another_model_is_a_line_that_says_so(zoo, monkeypatch):
    monkeypatch.setattr(zoo, "decide_form", lambda *_: ("fast", None))  # as if nobody looked
    build = partial(zoo.tutorial_network, "hook on the logits")
    row = zoo.line("wrong", (32,), build, torch.device("cpu"))
    assert row.value == 0
    assert row.details["logits"] > 0.1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's and timm's own making
@pytest.mark.parametrize("part", ["tutorials", "own"])
def test_small_networks(zoo, part):
    for name, (sizes, build) in zoo.ZOO[part]():
        row = zoo.line(name, sizes, build, torch.device("cpu"))
        assert row.value == 1, row
        assert row.details["moved"] == (name != "quantised"), row
        assert part != "own" or row.details["form"] == "fast", row


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(zoo, name):
    held(zoo, name, partial(zoo.torchvision_network, name))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TIMM)
def test_timm(zoo, name):
    held(zoo, name, partial(zoo.timm_network, name))


def held(zoo, name, build):
    """The view that is used is faithful, moves, and is fast unless it says why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = zoo.line(name, zoo.SIZES, build, torch.device("cpu"))
    assert row.value == 1, row
    assert row.details["logits"] < 1e-4
    assert row.details["gradients"] < max(0.01, row.details["kinks"])
    assert row.details["moved"]
    assert (row.details["form"] == "fast") == (row.details["reason"] is None)


def test_every_family_of_torchvision_has_its_smallest_here(zoo):
    import torchvision

    known = {name for name, _ in zoo.torchvision_networks()}
    assert known == set(torchvision.models.list_models(module=torchvision.models))
    assert set(TORCHVISION) <= known
    stems = (
        "alexnet",
        "convnext",
        "densenet",
        "efficientnet_b",
        "efficientnet_v2",
        "googlenet",
        "inception",
        "maxvit",
    )
    stems += (
        "mnasnet",
        "mobilenet_v2",
        "mobilenet_v3",
        "regnet_x",
        "regnet_y",
        "resnet",
        "resnext",
        "shufflenet",
    )
    stems += ("squeezenet", "swin_v2", "swin_", "vgg", "vit_", "wide_resnet")
    assert all(any(name.startswith(stem) for stem in stems) for name in known)
