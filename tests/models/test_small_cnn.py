import pytest
import torch
from torch.nn import functional as F

from counterpart.models.small_cnn import mnist_cnn, small_cnn
from counterpart.seeding import seeded


def test_mnist_cnn_by_hand(generator):
    with seeded(0):
        network = mnist_cnn(10).eval()
    assert [tuple(t.shape) for t in network.state_dict().values()][::2] == [
        (16, 1, 4, 4),
        (32, 16, 4, 4),
        (100, 1568),
        (10, 100),
    ]
    images, w = torch.rand(2, 1, 28, 28, generator=generator), network.state_dict()
    maps = F.conv2d(images, w["0.weight"], w["0.bias"], stride=2, padding=1).relu()
    maps = F.conv2d(maps, w["2.weight"], w["2.bias"], stride=2, padding=1).relu()
    hidden = F.linear(maps.flatten(1), w["5.weight"], w["5.bias"]).relu()
    expected = F.linear(hidden, w["7.weight"], w["7.bias"])
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(network.forward_features(images), maps)
    torch.testing.assert_close(network.forward_head(maps), expected)
    assert network.get_classifier() is network[7]


def test_small_cnn_by_hand(generator):
    with seeded(0):
        network = small_cnn(10).eval()
    images, w = torch.rand(2, 1, 28, 28, generator=generator), network.state_dict()
    maps = images
    for number in (1, 2, 3, 4):
        name = f"feature_extractor.conv{number}"
        maps = F.conv2d(maps, w[f"{name}.weight"], w[f"{name}.bias"]).relu()
        maps = F.max_pool2d(maps, 2) if number % 2 == 0 else maps
    hidden = maps.flatten(1)
    for number in (1, 2):
        hidden = F.linear(hidden, w[f"classifier.fc{number}.weight"], w[f"classifier.fc{number}.bias"]).relu()
    expected = F.linear(hidden, w["classifier.fc3.weight"], w["classifier.fc3.bias"])
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(network.forward_features(images), maps)
    assert network.get_classifier() is network.classifier.fc3


def test_images_that_are_too_small_are_refused():
    assert small_cnn(10, image_size=16)(torch.rand(1, 1, 16, 16)).shape == (1, 10)
    with pytest.raises(ValueError, match="at least 16 pixels, got 15"):
        small_cnn(10, image_size=15)
