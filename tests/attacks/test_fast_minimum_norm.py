import math

import pytest
import torch

from counterpart.attacks.fast_minimum_norm import fmn
from counterpart.budget import L1, L2, NORMS, Linf
from counterpart.catalogue import ATTACKS


@pytest.mark.parametrize("problem", ["away_from_plane", "away_from_planes"])
@pytest.mark.parametrize("norm", ATTACKS["fmn"].facts.norms)
def test_finds_the_distance_to_planes(request, keys, norm, problem):
    model, images, labels, distance = request.getfixturevalue(problem)(norm)
    attacked = fmn(model, images, labels, budget=NORMS[norm](0.5), keys=keys)
    ratio = attacked.distances / distance
    assert ratio.min() > 0.9999
    assert ratio.max() < 1.01
    assert ratio.median() < 1.001
    assert (attacked.forwards == 102).all()
    assert (attacked.backwards == 100).all()


def watched(position):
    """Two pixels and two classes, parted where the first pixel is at ``position``."""
    seen = []

    def model(x):
        seen.append(x.detach().flatten())
        score = 3 * (x[:, 0, 0, 0] - position)
        return torch.stack([-score, score], dim=1)

    return model, seen


@pytest.mark.parametrize("norm", ATTACKS["fmn"].facts.norms)
def test_the_ball_closes_in_on_the_boundary(keys, norm):
    model, seen = watched(0.6)
    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    steps = 4
    fmn(model, image, label, budget=NORMS[norm](1.0), keys=keys[:1], steps=steps)
    change = [0.001 + 0.049 * (1 + math.cos(math.pi * k / steps)) / 2 for k in range(steps)]
    radius = [0.0, 0.1]  # the way to the boundary, which is not beyond it: so the ball grows until it is
    for k in range(1, steps):
        beyond = radius[k] > 0.1
        radius.append(radius[k] * (1 - change[k] if beyond else 1 + change[k]))
    assert [float(x[0]) - 0.5 for x in seen[1:]] == pytest.approx(radius, abs=1e-6)
    assert all(float(x[1]) == 0.5 for x in seen)


def test_steps_have_their_length_and_fall_along_a_cosine(keys):
    """Far from the boundary the ball is wide, and only the steps say where the next image is."""
    seen = []

    def model(x):
        seen.append(x.detach().flatten())
        score = 0.001 * x[:, 0, 0, 0] - 1
        return torch.stack([-score, score], dim=1)

    image, label = torch.zeros(1, 1, 1, 2), torch.zeros(1, dtype=torch.int64)
    fmn(model, image, label, budget=L2(1.0), keys=keys[:1], steps=2, step_size=0.2)
    second = 0.2 * (0.01 + 0.99 / 2)
    assert [float(x[0]) for x in seen[1:]] == pytest.approx([0, 0.2, 0.2 + second], abs=1e-6)


def test_the_first_ball_reaches_the_boundary_in_shares_of_the_radius(keys):
    seen = []

    def model(x):
        seen.append(x.detach().flatten())
        score = x.flatten(1) @ torch.tensor([1.0, 2.0, 5.0]) - 4.1
        return torch.stack([-score, score], dim=1)

    image, label = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, dtype=torch.int64)
    budget = Linf(torch.tensor([0.2, 0.1, 0.0]).view(1, 1, 1, 3))
    fmn(model, image, label, budget=budget, keys=keys[:1], steps=1)
    # 4 now; a largest change of t brings t by the first pixel, and by the second t / 2 twice.
    assert (seen[2] - 0.5).tolist() == pytest.approx([0.05, 0.025, 0], abs=1e-6)


def test_l1_projects_onto_ball_and_box_together(keys):
    """The steepest pixel has room for .1 of the .3 that are needed: the second steepest takes the rest."""
    weight = torch.tensor([3.0, 2.0, 1.0])

    def model(x):
        score = (x.flatten(1) * weight).sum(dim=1) - 4.0
        return torch.stack([-score, score], dim=1)

    image, label = torch.tensor([0.9, 0.4, 0.0]).view(1, 1, 1, 3), torch.zeros(1, dtype=torch.int64)
    # 3.5 now; .1 of the first pixel brings .3, .1 of the second the rest.
    attacked = fmn(model, image, label, budget=L1(1.0), keys=keys[:1])
    assert attacked.distances.item() == pytest.approx(0.2, rel=0.01)
    assert attacked.nearest.flatten().tolist() == pytest.approx([1.0, 0.5, 0.0], abs=0.01)


def test_a_start_that_fools_sets_the_first_radius(keys):
    model, seen = watched(0.6)
    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    start = torch.tensor([0.9, 0.5]).view(1, 1, 1, 2)
    attacked = fmn(model, image, label, budget=L2(1.0), keys=keys[:1], start=start, steps=1)
    assert [float(x[0]) for x in seen[1:]] == pytest.approx(
        [0.9, 0.9]
    )  # not enlarged: what fooled is the limit
    assert attacked.distances.item() == pytest.approx(0.4)
