"""A table for my paper: two networks from my own training loop, under PGD, AutoAttack and an attack of mine."""

import torch
from methods import strokes
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

import counterpart as cp

EPS, EPS_LOW = 0.15, 0.05

digits = load_digits()
images = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None]  # (N, 1, 8, 8) in [0, 1]
labels = torch.tensor(digits.target)
train_images, train_labels = images[:1400], labels[:1400]
test = (images[1400:1500], labels[1400:1500])


def network():
    """A network of mine."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip


def budget_of(method, images, labels):
    """How far the attacker may move each pixel while this method trains."""
    if method == "strokes":
        return cp.masked_budget(images, labels, eps=EPS, eps_low=EPS_LOW, mask=strokes)
    return cp.Linf(EPS)


def train(method, epochs=8):
    """My loop."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        order = torch.randperm(len(train_images), generator=torch.Generator().manual_seed(epoch))
        for step, batch in enumerate(order.split(64)):
            x, y = train_images[batch], train_labels[batch]
            if method != "plain":
                budget = budget_of(method, x, y)
                x = cp.pgd(model, x, y, budget=budget, steps=5, seed=1000 * epoch + step).images
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


for method, name in (("plain", "Clean training"), ("uniform", "AT"), ("strokes", "AT on strokes")):
    judged = cp.evaluate(
        train(method),
        test,
        attacks=["pgd", {"attack": "methods:momentum", "steps": 20}, "autoattack"],
        eps=EPS,
        folder=f"runs/{method}",
        name=name,
    )
    print(judged)
