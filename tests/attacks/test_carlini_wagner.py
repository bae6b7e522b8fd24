import pytest
import torch

from counterpart.attacks.carlini_wagner import carlini_wagner
from counterpart.budget import L2, Linf


@pytest.mark.parametrize("problem", ["away_from_plane", "away_from_planes"])
def test_finds_the_distance_to_planes(request, keys, problem):
    model, images, labels, distance = request.getfixturevalue(problem)("l2")
    attacked = carlini_wagner(model, images, labels, budget=L2(1.0), keys=keys, steps=100)
    ratio = attacked.distances / distance
    assert ratio.min() > 0.9999
    assert ratio.max() < 1.02
    assert ratio.median() < 1.005
    assert (attacked.forwards == 1 + 9 * 100).all()
    assert (attacked.backwards == 9 * 100).all()


def test_confidence_goes_beyond_the_boundary(away_from_plane, keys):
    model, images, labels, distance = away_from_plane("l2")
    length = model.weight.norm()
    attacked = carlini_wagner(
        model, images, labels, budget=L2(1.0), keys=keys, steps=100, confidence=0.1 * float(length)
    )
    ratio = attacked.distances / (distance + 0.1)  # logits differ by the score, which is 0.1 further out
    assert ratio.min() > 0.9999
    assert ratio.max() < 1.02


def fooled_from(weight_needed):
    """One pixel; a hinge whose slope is just strong enough to leave .5 when its weight is this."""

    def model(x):
        # Squared distance has the slope 2 * .1 at the boundary .6: weight * slope must exceed that.
        score = (x[:, 0, 0, 0] - 0.6) * (0.2 / weight_needed)
        return torch.stack([-score / 2, score / 2], dim=1)

    return model


def test_weights_grow_tenfold_until_one_succeeds(keys):
    image, label = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    options = {"budget": L2(1.0), "keys": keys[:1], "steps": 80}
    for needed, searches in ((0.0005, 1), (0.005, 2), (0.05, 3), (0.5, 4)):
        few = carlini_wagner(fooled_from(needed), image, label, search_steps=searches - 1, **options)
        assert few.distances.item() == float("inf")
        assert few.forwards.item() == 1 + (searches - 1) * 80
        enough = carlini_wagner(fooled_from(needed), image, label, search_steps=searches, **options)
        assert 0.1 < enough.distances.item() < 0.13
    late = carlini_wagner(fooled_from(0.5), image, label, search_steps=1, initial_weight=1.0, **options)
    assert late.distances.isfinite()


def test_weights_are_bisected_after_a_success(keys):
    image, label = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    seen = []

    def model(x):
        seen.append(x.detach().item())
        score = x[:, 0, 0, 0] - 0.6
        return torch.stack([-score / 2, score / 2], dim=1)

    options = {"budget": L2(1.0), "keys": keys[:1], "steps": 400, "learning_rate": 0.002, "confidence": -0.03}
    carlini_wagner(model, image, label, search_steps=5, initial_weight=0.02, **options)
    ends = [seen[400 * k] - 0.5 for k in range(1, 6)]
    # The least of d^2 + c max(0, .1 - d - .03) is at d = c / 2, up to where the hinge ends, at .07.
    # The weight .02 fails, .2 succeeds, .11 between them fails, .155 succeeds, and .1325 fails.
    expected = [0.01, 0.07, 0.055, 0.07, 0.06625]
    assert ends == pytest.approx(expected, abs=3e-3)


def test_pixels_at_the_edge_of_the_box_can_leave_it(keys):
    def model(x):
        score = 0.75 - x.flatten(1).mean(dim=1)
        return torch.stack([-score, score], dim=1)

    image, label = torch.ones(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64)
    attacked = carlini_wagner(
        model, image, label, budget=L2(1.0), keys=keys[:1], steps=200, learning_rate=0.1
    )
    assert attacked.distances.item() == pytest.approx(0.5, rel=0.02)  # each of four pixels by .25


def test_has_l2_only(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="carlini_wagner has no linf budget: it has l2"):
        carlini_wagner(model, images, labels, budget=Linf(0.1), keys=keys)
