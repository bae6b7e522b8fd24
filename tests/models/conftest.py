"""Models that have learned something: batch norms with statistics and gammas of both signs."""

import pytest
import torch
from torch import nn

from counterpart.models import create
from counterpart.seeding import seeded


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm random statistics, gammas of both signs and biases."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor):
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.3 * normal(module.running_mean))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
                module.weight.copy_(normal(module.weight))
                module.bias.copy_(0.3 * normal(module.bias))
    return model


@pytest.fixture
def make():
    """``make(name, seed=0, **options)``: a randomised network of 10 classes, in eval mode."""

    def build(name, seed=0, **options):
        with seeded(seed):
            return randomise(create(name, 10, **options), seed).eval()

    return build


@pytest.fixture
def images(generator):
    return torch.rand(4, 3, 32, 32, generator=generator)
