import math

import pytest
import torch

from counterpart.attacks.decoupled_direction_norm import ddn
from counterpart.budget import L2, Linf
from counterpart.seeding import Keys


@pytest.mark.parametrize("problem", ["away_from_plane", "away_from_planes"])
def test_finds_the_distance_to_planes(request, keys, problem):
    model, images, labels, distance = request.getfixturevalue(problem)("l2")
    attacked = ddn(model, images, labels, budget=L2(1.0), keys=keys)
    ratio = attacked.distances / distance
    assert ratio.min() > 0.9999
    assert ratio.max() < 1.02
    assert ratio.median() < 1.005
    assert (attacked.forwards == 102).all()
    assert (attacked.backwards == 100).all()


def watched(position):
    """Two pixels and two classes, parted where the first pixel is at ``position``."""
    seen = []

    def model(x):
        seen.append(x.detach().flatten())
        score = x[:, 0, 0, 0] - position
        return torch.stack([-score, score], dim=1)

    return model, seen


def test_lengths_shrink_after_a_success_and_grow_after_a_failure(keys):
    model, seen = watched(0.61)
    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    options = {"budget": L2(1.0), "keys": keys[:1], "gamma": 0.2, "initial_norm": 0.1, "steps": 4}
    attacked = ddn(model, image, label, **options)
    lengths = [float(x[0]) - 0.5 for x in seen[1:]]
    # .1 fails before it is tried, for the clean image does: .12 fools, then .096 does not, then .1152 does.
    assert lengths == pytest.approx([0, 0.12, 0.096, 0.1152, 0.09216], abs=1e-6)
    assert attacked.distances.item() == pytest.approx(0.1152, abs=1e-6)
    assert all(float(x[1]) == 0.5 for x in seen)


def test_the_last_iterate_is_judged(keys):
    model, _ = watched(0.61)
    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    options = {"budget": L2(1.0), "keys": keys[:1], "gamma": 0.2, "initial_norm": 0.1}
    assert ddn(model, image, label, steps=1, **options).distances.item() == pytest.approx(0.12, abs=1e-6)


def test_directions_turn_at_a_falling_rate(keys):
    """The gradient turns by a right angle at each step: the ratio of two pixels tells the rates."""
    calls = []

    def model(x):
        calls.append(x.detach().flatten() - 0.5)
        score = x[:, 0, 0, 0 if len(calls) % 2 else 1]
        return torch.stack([-score, score - 2], dim=1)

    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    ddn(model, image, label, budget=L2(1.0), keys=keys[:1], steps=2, initial_norm=0.1)
    rate = 0.01 + 0.99 * (1 + math.cos(math.pi / 2)) / 2
    assert calls[2].tolist() == pytest.approx([0, 0.105], abs=1e-6)
    turned = torch.tensor([rate, 0.105])
    expected = 0.105 * 1.05 * turned / turned.norm()
    assert calls[3].tolist() == pytest.approx(expected.tolist(), abs=1e-6)


class Island(torch.nn.Module):
    """Flat but for where it is fooled, from .51 on (.26 squared): only random directions lead there."""

    def forward(self, x):
        far = (x - 0.5).square().flatten(1).sum(dim=1) - 0.25
        return torch.stack([torch.zeros_like(far), torch.relu(far) - 0.01], dim=1)


def test_draws_a_direction_where_the_model_is_flat():
    images, labels = torch.full((8, 1, 4, 4), 0.5), torch.zeros(8, dtype=torch.int64)

    def search(seed, rows=slice(None)):
        keys = Keys(seed, "t", torch.arange(8))[rows]
        return ddn(Island(), images[rows], labels[rows], budget=L2(1.0), keys=keys, steps=30)

    attacked = search(0)
    assert attacked.distances.max() < 0.56
    assert torch.equal(search(0).nearest, attacked.nearest)
    assert torch.equal(search(0, slice(3, 4)).nearest, attacked.nearest[3:4])
    assert not torch.equal(search(1).nearest, attacked.nearest)
    labels[0] = 1  # wrong already, so that the others are searched without it
    assert torch.equal(search(0).nearest[1:], attacked.nearest[1:])
    assert not torch.equal(attacked.nearest[0], attacked.nearest[1])


def test_frozen_pixels_take_no_part_in_the_length(keys):
    seen = []

    def model(x):
        seen.append(x.detach().flatten())
        score = x.flatten(1) @ torch.tensor([3.0, 4.0, 12.0]) - 20
        return torch.stack([-score, score], dim=1)

    image, label = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, dtype=torch.int64)
    budget = L2(1.0, torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3))
    ddn(model, image, label, budget=budget, keys=keys[:1], steps=1, initial_norm=0.1)
    assert (seen[2] - 0.5).tolist() == pytest.approx([0.063, 0.084, 0], abs=1e-6)  # of length .105


def test_a_drawn_direction_leaves_frozen_pixels_out(keys):
    seen = []

    def model(x):
        seen.append(x.detach().flatten())
        return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1)[:, :2]

    image, label = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, dtype=torch.int64)
    budget = L2(1.0, torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 3))
    ddn(model, image, label, budget=budget, keys=keys[:1], steps=1, initial_norm=0.1)
    moved = seen[2] - 0.5
    assert moved[2] == 0
    assert moved.norm().item() == pytest.approx(0.105, abs=1e-6)


def test_has_l2_only(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="ddn has no linf budget: it has l2"):
        ddn(model, images, labels, budget=Linf(0.1), keys=keys)
