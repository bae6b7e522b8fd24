import pytest
import torch

from counterpart.attacks.deepfool import deepfool
from counterpart.budget import L1, L2, NORMS


@pytest.mark.parametrize("overshoot", [0.02, 0.1])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_goes_beyond_a_plane_by_the_overshoot(away_from_plane, keys, norm, overshoot):
    model, images, labels, distance = away_from_plane(norm)
    attacked = deepfool(model, images, labels, budget=NORMS[norm](0.5), keys=keys, overshoot=overshoot)
    torch.testing.assert_close(attacked.distances, (1 + overshoot) * distance, rtol=1e-3, atol=0)
    assert (attacked.forwards == 3).all()  # clean, clean with its graph, and where the one step leads
    assert (attacked.backwards == 1).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_goes_to_the_nearest_of_many_planes(away_from_planes, keys, norm):
    model, images, labels, distance = away_from_planes(norm)
    attacked = deepfool(model, images, labels, budget=NORMS[norm](0.5), keys=keys)
    torch.testing.assert_close(attacked.distances, 1.02 * distance, rtol=1e-3, atol=0)
    assert (attacked.backwards == 4).all()


def test_candidates_are_the_likeliest_classes(keys):
    """Class 1 is likelier, class 2 nearer: two candidates see only the former."""
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 10.0]])
    bias = torch.tensor([0.3, -0.5, -5.7])  # at (.5, .5): 0.3, 0, -0.7, so that planes are .3 and .1 away

    def model(x):
        return x.flatten(1) @ weight.T + bias

    image, label = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    options = {"budget": L2(1.0), "keys": keys[:1]}
    assert deepfool(model, image, label, candidates=2, **options).distances.item() == pytest.approx(0.306)
    for candidates in (3, 10):
        attacked = deepfool(model, image, label, candidates=candidates, **options)
        assert attacked.distances.item() == pytest.approx(0.102)
        assert attacked.backwards.item() == 2
    with pytest.raises(ValueError, match="2 candidates or more"):
        deepfool(model, image, label, candidates=1, **options)


def curved(x):
    """Fooled where the first pixel exceeds sqrt(.5), which takes several steps of Newton's method from .1."""
    score = x[:, 0, 0, 0] ** 2 - 0.5
    return torch.stack([-score / 2, score / 2], dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_steps_add_up_and_the_overshoot_is_of_all_of_them(keys, norm):
    image, label = torch.full((1, 1, 1, 1), 0.6), torch.zeros(1, dtype=torch.int64)
    # Newton's first step goes to .6 + .14 / 1.2, and 2 % beyond: that is past sqrt(.5).
    attacked = deepfool(curved, image, label, budget=NORMS[norm](0.5), keys=keys[:1])
    assert attacked.distances.item() == pytest.approx(1.02 * 0.14 / 1.2, rel=1e-4)


def rooted(x):
    """Concave, so that every step falls short of the boundary at .81: sqrt(x) = .9 seen from the other side."""
    score = x[:, 0, 0, 0] ** 3 - 0.001
    return torch.stack([score / 2, -score / 2], dim=1)


def test_stops_after_its_steps(keys):
    image, label = torch.full((1, 1, 1, 1), 0.9), torch.zeros(1, dtype=torch.int64)
    options = {"budget": L2(1.0), "keys": keys[:1]}
    enough = deepfool(rooted, image, label, **options)
    assert 0.8 <= enough.distances.item() < 0.82  # the boundary is at .1
    needed = enough.backwards.item()
    assert needed > 2
    assert deepfool(rooted, image, label, steps=needed, **options).distances.equal(enough.distances)
    short = deepfool(rooted, image, label, steps=needed - 1, **options)
    assert short.distances.item() == float("inf")
    assert short.forwards.item() == needed + 1


def test_leaves_a_tie(keys):
    def model(x):
        return torch.stack([x[:, 0, 0, 0], torch.full_like(x[:, 0, 0, 0], 0.5)], dim=1)

    image, label = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    attacked = deepfool(model, image, label, budget=L2(1.0), keys=keys[:1])
    assert 0 < attacked.distances.item() < 1e-5


def test_has_no_l1(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="deepfool has no l1 budget: it has linf, l2"):
        deepfool(model, images, labels, budget=L1(1.0), keys=keys)
