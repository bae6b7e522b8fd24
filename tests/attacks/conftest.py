"""Linear problems at a distance, for attacks that look for the nearest adversarial image."""

import math

import pytest
import torch

DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
FARTHEST = {"linf": 0.03, "l2": 0.4, "l1": 0.3}  # small enough that no pixel reaches 0 or 1


@pytest.fixture
def away_from_plane(linear_problem):
    """norm -> model of two classes, 64 images, their labels, and how far (64,) each is from the other class."""
    model, images, labels = linear_problem

    def problem(norm):
        length = torch.linalg.vector_norm(model.weight.flatten(), DUAL[norm])
        distance = torch.linspace(0.5, 1, 64) * FARTHEST[norm]
        signs = torch.where(labels == 1, 1.0, -1.0)
        missing = (signs * distance * length - model.score(images)) / model.weight.square().sum()
        moved = images + missing.view(-1, 1, 1, 1) * model.weight
        assert torch.equal(model(moved).argmax(dim=1), labels)
        return model, moved, labels, distance

    return problem


@pytest.fixture
def away_from_planes(generator):
    """norm -> model of five classes, 64 images of class 0, labels, how far (64,) the nearest, likeliest class 1 is."""
    weight = torch.randn(5, 192, generator=generator)
    weight[1:] += weight[0]  # all rivals differ from class 0 by independent directions
    images = 0.5 + 0.002 * torch.randn(64, 3, 8, 8, generator=generator)
    labels = torch.zeros(64, dtype=torch.int64)

    def problem(norm):
        lengths = torch.linalg.vector_norm(weight[1:] - weight[0], DUAL[norm], dim=1)
        wanted = torch.tensor([0.5, 0.9, 1.0, 1.0]) * FARTHEST[norm] * lengths
        gaps = torch.cat([torch.zeros(1), wanted])
        bias = -gaps - 0.5 * (weight - weight[0]).sum(dim=1)

        def model(x):
            return x.flatten(1) @ weight.T + bias

        logits = model(images)
        distances = (logits[:, :1] - logits[:, 1:]) / lengths
        assert (logits.argsort(dim=1, descending=True)[:, :2] == torch.tensor([0, 1])).all()
        assert (distances.argmin(dim=1) == 0).all()
        return model, images, labels, distances[:, 0]

    return problem
