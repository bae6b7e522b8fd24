"""A network of a user's own."""

import torch
from torch import nn


def linear():
    """A linear classifier whose weights are the same everywhere."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    with torch.no_grad():
        steps = torch.arange(1440).view(10, 144)
        network[1].weight.copy_(((steps * 37) % 101 - 50) / 250)
        network[1].bias.zero_()
    return network
