"""A network and images that tests of the Python API share: an answer hangs on a few pixels, so that attacks succeed."""

import pytest
import torch
from torch import nn

from counterpart.models.modes import eval_mode


class Net(nn.Module):
    """Four classes of images 3x8x8, with batch norm, so that modes matter."""

    def __init__(self, channels=3, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, classes)

    def forward(self, images):
        return self.head(torch.relu(self.norm(self.conv(images))).mean((2, 3)))


@pytest.fixture
def images():
    return torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def net(images):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Net()
    with torch.no_grad(), eval_mode(made):
        made.head.weight.mul_(50)
        made.head.bias.sub_(made(images).mean(0))
    return made.eval()


@pytest.fixture
def labels(net, images):
    return net(images).argmax(1)
