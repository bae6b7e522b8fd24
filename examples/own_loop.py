"""Adversarial training in a loop of one's own: PGD, TRADES, MART and PART, with a plain PyTorch network and optimiser.

Run: python examples/own_loop.py [METHOD]. It trains a small network on the digits that scikit-learn holds (no
download, half a minute) and says how many test images it gets right, clean and under PGD.
"""

import sys

import torch
from torch import nn
from torch.nn import functional as F

import counterpart as cp
from counterpart.data import load_digits

METHODS = ("pgd", "trades", "mart", "part")


def train_epoch(model, batches, optimizer, method, *, eps=16 / 255, eps_low=8 / 255, seed=0):
    """One epoch of a model whose maps are drawn at ``model.features``; images in [0, 1], labels of any integer type."""
    for step, (images, labels) in enumerate(batches):
        budget, loss = cp.Linf(eps), "kl_divergence" if method == "trades" else "cross_entropy"
        if method == "part":  # the full radius where the class activation map is high, eps_low elsewhere
            maps = cp.layer_map(model, images, labels, model.features)
            budget = cp.masked_budget(images, labels, maps, eps=eps, eps_low=eps_low)
        attacked = cp.pgd(
            model, images, labels, budget=budget, loss=loss, steps=5, seed=seed + step, last_iterate=True
        )
        model.train()
        if method in ("trades", "mart"):
            objective = cp.trades_loss if method == "trades" else cp.mart_loss
            total = objective(model(images), model(attacked.images), labels, beta=6.0)
        else:
            total = F.cross_entropy(model(attacked.images), labels)
        optimizer.zero_grad(), total.backward(), optimizer.step()


class Network(nn.Module):
    """A convolutional network for 16 x 16 grey images."""

    def __init__(self, classes=10):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.head = nn.Linear(32 * 4 * 4, classes)

    def forward(self, images):
        """Logits."""
        return self.head(self.features(images).flatten(1))


def accuracies(model, images, labels, eps=16 / 255):
    """Shares of the images that are classified correctly: clean, and after PGD."""
    attacked = cp.pgd(model, images, labels, budget=cp.Linf(eps), steps=20)
    model.eval()
    with torch.no_grad():
        answers = [model(x).argmax(dim=1) for x in (images, attacked.images)]
    return [float((answer == labels).float().mean()) for answer in answers]


def main(method="part", epochs=8, size=64):
    """Train and judge one network."""
    torch.manual_seed(0)
    data = load_digits()
    images, labels = (data.train.pixels.float() / 255), data.train.labels
    test_images, test_labels = data.test.pixels.float() / 255, data.test.labels
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(images))
        batches = [(images[rows], labels[rows]) for rows in order.split(size)]
        train_epoch(model, batches, optimizer, method, seed=epoch * len(batches))
    clean, robust = accuracies(model, test_images, test_labels)
    print(f"{method}: clean {clean:.1%}, under PGD {robust:.1%}")
    return clean, robust


if __name__ == "__main__":
    main(*sys.argv[1:])
