import pytest
import torch
from torch import nn

from counterpart.models.cifar_resnet import preact_resnet18, resnet18, wide_resnet
from counterpart.seeding import seeded


def count(build):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


# Published counts. PreAct: 11,171,146 of the network without its last batch norm, and 2 * 512 for that.
@pytest.mark.parametrize(
    ("build", "published"),
    [
        (lambda: resnet18(10), 11_173_962),
        (lambda: preact_resnet18(10), 11_172_170),
        (lambda: wide_resnet(28, 10, 10), 36_479_194),
        (lambda: wide_resnet(34, 10, 10), 46_160_474),
    ],
)
def test_parameter_counts_are_the_published_ones(build, published):
    assert count(build) == published


def test_names_are_the_published_ones():
    with torch.device("meta"):
        assert {"conv1.weight", "layer2.0.shortcut.1.running_var", "layer4.1.bn2.bias", "linear.bias"} <= set(
            resnet18(10).state_dict()
        )
        preact = set(preact_resnet18(10).state_dict())
        wide = set(wide_resnet(16, 2, 10).state_dict())
    assert {"layer1.0.bn1.weight", "layer2.0.shortcut.0.weight", "bn.running_mean", "linear.weight"} <= preact
    assert not any("shortcut" in name for name in preact if name.startswith("layer1"))
    assert {
        "block1.layer.0.convShortcut.weight",
        "block3.layer.1.conv2.weight",
        "bn1.bias",
        "fc.bias",
    } <= wide


def networks(width):
    with seeded(0):
        return [
            resnet18(5, width=width, in_channels=2).eval(),
            preact_resnet18(5, width=width, in_channels=2).eval(),
            wide_resnet(10, 1, 5, width=width, in_channels=2).eval(),
        ]


@pytest.mark.parametrize("which", range(3))
def test_logits_are_the_linear_layer_on_averaged_features(which, generator):
    network = networks(8)[which]
    images = torch.rand(3, 2, 24, 16, generator=generator)
    features = network.forward_features(images)
    layer = network.get_classifier()
    assert features.shape == (3, layer.in_features, *((3, 2) if which < 2 else (6, 4)))
    assert features.min() >= 0  # a ReLU is the last thing before pooling
    expected = torch.einsum("bahw,ka->bk", features, layer.weight) / features[0, 0].numel() + layer.bias
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(network.forward_head(features), expected)


@pytest.mark.parametrize("which", range(3))
def test_width_is_the_channels_of_the_first_stage(which):
    network = networks(12)[which]
    first = network.block1.layer[0] if which == 2 else network.layer1[0]
    assert first.conv2.out_channels == 12
    assert network.get_classifier().in_features == 12 * (4 if which == 2 else 8)


def test_published_preactivation_block_shares_its_activation_with_a_reshaping_shortcut(generator):
    for network in networks(8)[1:]:
        block = network.layer2[0] if hasattr(network, "layer2") else network.block2.layer[0]
        shortcut = block.shortcut if hasattr(block, "shortcut") else block.convShortcut
        features = torch.randn(2, 8, 4, 4, generator=generator)
        active = block.bn1(features).relu()
        expected = block.conv2(block.bn2(block.conv1(active)).relu()) + shortcut(active)
        torch.testing.assert_close(block(features), expected)
    plain = networks(8)[1].layer1[1]
    features = torch.randn(2, 8, 4, 4, generator=generator)
    inner = plain.conv2(plain.bn2(plain.conv1(plain.bn1(features).relu())).relu())
    torch.testing.assert_close(plain(features), inner + features)


def test_the_shortcut_may_start_at_the_blocks_input(generator):
    with seeded(0):
        late, early = (preact_resnet18(5, width=8, early_shortcut=choice).eval() for choice in (False, True))
    early.load_state_dict(late.state_dict())
    features = torch.randn(2, 8, 8, 8, generator=generator)
    block = early.layer2[0]
    inner = block.conv2(block.bn2(block.conv1(block.bn1(features).relu())).relu())
    torch.testing.assert_close(block(features), inner + block.shortcut(features))
    assert not torch.allclose(late.layer2[0](features), block(features))


def test_the_last_norm_may_be_missing(generator):
    with seeded(0):
        network = preact_resnet18(5, width=8, final_norm=False).eval()
    images = torch.rand(2, 3, 16, 16, generator=generator)
    features = network.conv1(images)
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        features = stage(features)
    torch.testing.assert_close(network(images), network.linear(features.mean(dim=(2, 3))))
    assert not any(name.startswith("bn.") for name in network.state_dict())


def test_resnet18_by_hand(generator):
    network = networks(8)[0]
    images = torch.rand(2, 2, 8, 8, generator=generator)
    features = network.bn1(network.conv1(images)).relu()
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in stage:
            inner = block.bn2(block.conv2(block.bn1(block.conv1(features)).relu()))
            features = (inner + block.shortcut(features)).relu()
    torch.testing.assert_close(network.forward_features(images), features)


def test_wide_networks_start_he_normal_by_fan_out():
    with seeded(1):
        network = wide_resnet(10, 4, 10)
    conv = network.block2.layer[0].conv1  # 64 -> 128 channels, 3 x 3
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert not network.fc.bias.any()


def test_depth_must_fit():
    with pytest.raises(ValueError, match="6 n \\+ 4"):
        wide_resnet(30, 10, 10)
    assert isinstance(wide_resnet(16, 1, 2).fc, nn.Linear)
