import pytest
import torch
from torch.nn import functional as F

from counterpart.models.deepmind_resnet import dm_preact_resnet18, dm_wide_resnet
from counterpart.seeding import seeded

from .conftest import randomise


@pytest.fixture
def networks():
    with seeded(0):
        return [randomise(n).eval() for n in (dm_wide_resnet(10, 1, 5), dm_preact_resnet18(5, width=8))]


def test_names_are_the_published_ones():
    with torch.device("meta"):
        wide, preact = set(dm_wide_resnet(28, 10, 10).state_dict()), set(dm_preact_resnet18(10).state_dict())
        count = sum(p.numel() for p in dm_wide_resnet(28, 10, 10).parameters())
    assert {"init_conv.weight", "layer.2.block.3.conv_1.weight", "layer.0.block.0.shortcut.weight"} <= wide
    assert {"batchnorm.running_mean", "logits.bias", "layer.1.block.0.batchnorm_0.bias"} <= wide
    assert {"conv_2d.weight", "layer_1.0.shortcut.weight", "layer_3.1.conv_2d_2.weight"} <= preact
    assert "layer_0.0.shortcut.weight" not in preact
    assert count == 36_479_194  # of WRN-28-10, whoever wrote it


def test_wide_block_by_hand(networks, generator):
    block = networks[0].layer[1].block[0]
    features = torch.randn(2, 16, 8, 8, generator=generator)
    active = F.silu(block.batchnorm_0(features))
    # TensorFlow's "same" at stride two: the window of output i begins at pixel 2 i.
    inner = F.conv2d(F.pad(active, (0, 1, 0, 1)), block.conv_0.weight, stride=2)
    inner = F.conv2d(F.silu(block.batchnorm_1(inner)), block.conv_1.weight, padding=1)
    expected = inner + F.conv2d(active, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(features), expected)


def test_preactivation_blocks_by_hand(networks, generator):
    features = torch.randn(2, 8, 8, 8, generator=generator)
    reshaping, plain = networks[1].layer_1[0], networks[1].layer_0[1]
    active = F.pad(F.silu(reshaping.batchnorm_0(features)), (0, 1, 0, 1))
    inner = F.silu(reshaping.batchnorm_1(F.conv2d(active, reshaping.conv_2d_1.weight, stride=2)))
    expected = F.conv2d(inner, reshaping.conv_2d_2.weight, padding=1)
    expected = expected + F.conv2d(F.pad(features, (0, 1, 0, 1)), reshaping.shortcut.weight, stride=2)
    torch.testing.assert_close(reshaping(features), expected)
    inner = F.conv2d(F.silu(plain.batchnorm_0(features)), plain.conv_2d_1.weight, padding=1)
    inner = F.conv2d(F.silu(plain.batchnorm_1(inner)), plain.conv_2d_2.weight, padding=1)
    torch.testing.assert_close(plain(features), inner + features)


def test_networks_by_hand(networks, generator):
    images = torch.rand(2, 3, 16, 16, generator=generator)
    wide, preact = networks
    features = wide.init_conv(images)
    for stage in wide.layer:
        for block in stage.block:
            features = block(features)
    pooled = F.silu(wide.batchnorm(features)).mean(dim=(2, 3))
    torch.testing.assert_close(wide(images), wide.logits(pooled))
    features = preact.conv_2d(images)
    for stage in (preact.layer_0, preact.layer_1, preact.layer_2, preact.layer_3):
        features = stage[1](stage[0](features))
    pooled = F.silu(preact.batchnorm(features)).mean(dim=(2, 3))
    torch.testing.assert_close(preact(images), preact.logits(pooled))
