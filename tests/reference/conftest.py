"""A small robust network on real images, for comparisons with other implementations."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from counterpart.attacks import pgd
from counterpart.budget import Linf
from counterpart.seeding import Keys, seeded


@pytest.fixture(scope="session")
def robust_digits():
    """(model, 512 test images (512, 1, 8, 8), their labels), adversarially trained at 0.15."""
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float()[:, None]
    labels = torch.from_numpy(digits.target).long()
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for step in range(400):
            index = torch.randperm(1200)[:128]
            keys = Keys(step, "train", index)
            attacked = pgd(
                model, images[index], labels[index], budget=Linf(0.15), keys=keys, steps=5, last_iterate=True
            )
            optimizer.zero_grad()
            F.cross_entropy(model(attacked.images), labels[index]).backward()
            optimizer.step()
    return model.requires_grad_(False).eval(), images[1200:1712], labels[1200:1712]
