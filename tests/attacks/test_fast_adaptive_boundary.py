import math

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize_scalar
from torch import nn

from counterpart.attacks.fast_adaptive_boundary import fab, moves_onto_plane
from counterpart.budget import L1, L2, NORMS, Linf
from counterpart.catalogue import ATTACKS
from counterpart.losses.classification import likely_class
from counterpart.seeding import Keys

# How near FAB comes to the boundary of a linear model, in distances from the clean image to it: it goes to eta = 1.05,
# is pulled back to .945, overshoots the remaining .055 by 5 %, and leans towards 1.05 by .055 / (.055 + 1).
# Every later pull-back ends further from the boundary, and so does the step after it.
NEAREST = 1.05 * 0.055 / 1.055 + (0.945 + 1.05 * 0.055) / 1.055

ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


def half():
    return (torch.arange(8) < 4).float().expand(64, 1, 8, 8)


def budgets(images, generator):
    per_pixel = 0.02 * torch.rand(len(images), 1, 8, 8, generator=generator)
    return {
        "linf, one number": Linf(0.01),
        "linf, per image": Linf(torch.linspace(0, 0.02, len(images))),
        "linf, per pixel": Linf(per_pixel),
        "linf, half frozen": Linf(per_pixel * (torch.arange(8) < 4)),
        "linf, per channel": Linf(0.02 * torch.rand(len(images), 3, 8, 8, generator=generator)),
        "l2, one number": L2(0.05),
        "l2, per image": L2(torch.linspace(0, 0.1, 64)),
        "l2, half frozen": L2(torch.linspace(0.02, 0.1, 64), half()),
        "l1, one number": L1(0.3),
        "l1, per image": L1(torch.linspace(0, 0.4, 64)),
        "l1, half frozen": L1(torch.linspace(0.02, 0.4, 64), half()),
    }


def reach_of(budget, weight, images):
    """The largest change of a linear score; no budget here comes near the box."""
    slope = (weight * budget.radius(images)).expand_as(images).flatten(1)
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[budget.norm]
    return torch.linalg.vector_norm(slope, dual, dim=1)


KINDS = list(budgets(torch.zeros(64, 3, 8, 8), torch.Generator()))


# Of two classes the likeliest wrong one is the only one: aimed at it, the attack does the same.
AIMED = ("linf, per pixel", "l2, half frozen", "l1, half frozen")


@pytest.mark.parametrize(
    ("kind", "target"), [*((kind, None) for kind in KINDS), *((kind, 1) for kind in AIMED)]
)
def test_fools_a_linear_model_exactly_when_possible(linear_problem, generator, keys, kind, target):
    model, images, labels = linear_problem
    budget = budgets(images, generator)[kind]
    possible = reach_of(budget, model.weight, images) > NEAREST * model.score(images).abs()
    assert 0 < possible.sum() < len(images)  # otherwise this test says nothing

    attacked = fab(model, images, labels, budget=budget, keys=keys, target=target)

    fooled = model(attacked.images).argmax(dim=1) != labels
    assert budget.contains(attacked.images, images).all()
    assert torch.equal(fooled, possible)
    assert torch.equal(attacked.images[~fooled], images[~fooled])


@pytest.mark.parametrize("norm", ATTACKS["fab"].facts.norms)
def test_comes_as_near_as_it_should(linear_problem, keys, norm):
    model, images, labels = linear_problem
    distance = model.score(images).abs() / reach_of(NORMS[norm](1.0), model.weight, images)
    for factor, expected in ((0.9999, False), (1.0001, True)):
        budget = NORMS[norm](factor * NEAREST * distance)
        attacked = fab(model, images, labels, budget=budget, keys=keys)
        assert ((model(attacked.images).argmax(dim=1) != labels) == expected).all()
        assert budget.contains(attacked.images, images).all()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_without_a_target_finds_the_nearest_of_many_boundaries(keys, generator, classes):
    weight = torch.randn(classes, 192, generator=generator)
    images = 0.5 + 0.05 * torch.randn(64, 3, 8, 8, generator=generator)

    def model(x):
        return x.flatten(1) @ weight.T

    labels = model(images).argmax(dim=1)
    gaps = model(images).gather(1, labels[:, None]) - model(images)
    slopes = (weight[labels][:, None] - weight).abs().sum(dim=-1)
    distance = torch.where(gaps > 0, gaps / slopes, torch.inf)
    nearest = distance.amin(dim=1)
    for factor in (0.9999, 1.0001):
        attacked = fab(model, images, labels, budget=Linf(factor * NEAREST * nearest), keys=keys, steps=10)
        assert ((model(attacked.images).argmax(dim=1) != labels) == (factor > 1)).all()
        if factor < 1:
            assert (attacked.backwards == 10 * (classes - 1)).all()

    # Towards a given class, the way is that to its own boundary, unless another is crossed on it.
    last = likely_class(model(images), labels, classes - 1)
    own = distance.gather(1, last[:, None])[:, 0]
    options = {"budget": Linf(1.0001 * NEAREST * own), "keys": keys, "steps": 10}
    ranked = fab(model, images, labels, target=classes - 1, **options)
    given = fab(model, images, labels, target=last, **options)
    assert (model(given.images).argmax(dim=1) != labels).all()
    assert torch.equal(ranked.images, given.images)  # the rank is found by one more pass on the clean images
    assert torch.equal(ranked.forwards, given.forwards + 1)
    assert torch.equal(ranked.backwards, given.backwards)


def exact_length(point, slope, value, norm):
    """The shortest move onto the plane within [0, 1], by a solver that knows nothing of ours; None: out of reach."""
    slope = slope * -np.sign(value)  # now the function must rise by |value|
    needed, room = abs(value), np.where(slope > 0, 1 - point, point)
    if (np.abs(slope) * room).sum() <= needed:
        return None
    if norm == "l2":  # the dual of the quadratic problem, in one variable
        slope = np.abs(slope)

        def dual(t):
            move = np.minimum(t * slope, room)
            return -((move**2).sum() / 2 + t * (needed - slope @ move))

        best = minimize_scalar(
            dual, bounds=(0, 1e4), method="bounded", options={"xatol": 1e-12, "maxiter": 5000}
        )
        return np.sqrt(-2 * best.fun)
    size, ones = len(point), np.ones((len(point), 1))
    if norm == "l1":
        return linprog(
            np.ones(size), -np.abs(slope)[None], [-needed], bounds=list(zip(0 * room, room, strict=True))
        ).fun
    below = np.hstack([np.eye(size), -ones])  # each move is at most the last variable
    rises = np.append(-np.abs(slope), 0)[None]
    bounds = [*zip(0 * room, room, strict=True), (0, None)]
    cost = np.append(np.zeros(size), 1)
    return linprog(cost, np.vstack([rises, below]), np.append(-needed, np.zeros(size)), bounds=bounds).fun


@pytest.mark.parametrize("norm", ATTACKS["fab"].facts.norms)
def test_moves_onto_plane_are_the_shortest(generator, norm):
    points = torch.rand(2, 40, 12, generator=generator)
    points[points < 0.15] = 0  # on the box, as most pixels of a digit are
    points[points > 0.85] = 1
    slope = torch.randn(40, 12, generator=generator)
    slope[torch.rand(40, 12, generator=generator) < 0.2] = 0
    slope[:, 3] = slope[:, 4]  # equally steep
    values = 3 * torch.randn(2, 40, generator=generator)
    moves = moves_onto_plane(points, slope, values, torch.zeros(40, 12), torch.ones(40, 12), norm)

    reached = points + moves
    assert reached.min() > -1e-6
    assert reached.max() < 1 + 1e-6
    assert (moves[(slope == 0).expand_as(moves)] == 0).all()
    left = values + (slope * moves).sum(dim=-1)
    lengths = torch.linalg.vector_norm(moves, ORDER[norm], dim=-1)
    in_reach = 0
    for n, b in np.ndindex(2, 40):
        point, w, value = points[n, b].double().numpy(), slope[b].double().numpy(), float(values[n, b])
        expected = exact_length(point, w, value, norm)
        if expected is None:  # every coordinate goes all the way
            corner = torch.where(slope[b] * values[n, b] > 0, 0.0, 1.0)
            assert torch.allclose(reached[n, b], torch.where(slope[b] == 0, points[n, b], corner), atol=1e-6)
        else:
            in_reach += 1
            assert abs(left[n, b]) < 1e-5
            assert lengths[n, b] == pytest.approx(expected, rel=2e-4, abs=1e-5)
    assert 20 < in_reach < 70


@pytest.mark.parametrize("norm", ATTACKS["fab"].facts.norms)
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e20])
def test_moves_onto_plane_do_not_depend_on_the_scale_of_the_function(generator, norm, scale):
    points, slope = torch.rand(2, 8, 300, generator=generator), torch.randn(8, 300, generator=generator)
    values = 5 * torch.randn(2, 8, generator=generator)
    low, high = torch.zeros(8, 300), torch.ones(8, 300)
    expected = moves_onto_plane(points, slope, values, low, high, norm)
    moves = moves_onto_plane(points, scale * slope, scale * values, low, high, norm)
    torch.testing.assert_close(moves, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ATTACKS["fab"].facts.norms)
def test_a_flat_function_moves_nothing(norm):
    points, flat = torch.full((2, 3, 5), 0.5), torch.zeros(3, 5)
    moves = moves_onto_plane(points, flat, torch.tensor([[1.0, -1, 0]] * 2), flat, flat + 1, norm)
    assert (moves == 0).all()


def test_leaves_frozen_pixels_alone(linear_problem, keys):
    model, images, labels = linear_problem
    eps = torch.full((64, 1, 8, 8), 8 / 255)
    eps[..., :4] = 0
    for budget in (Linf(eps), L2(1.0, half()), L1(2.0, half())):
        moved = (
            fab(model, images, labels, budget=budget, keys=keys, start=torch.rand_like(images)).images
            != images
        )
        frozen = budget.radius(images).expand_as(images) == 0
        assert moved.any()
        assert not (moved & frozen).any()


def test_a_radius_of_zero_finds_nothing_and_breaks_nothing(linear_problem, keys):
    model, images, labels = linear_problem
    for budget in (Linf(0.0), L2(0.0), L1(1.0, torch.zeros(64, 1, 8, 8)), Linf(1e-42)):
        attacked = fab(model, images, labels, budget=budget, keys=keys, steps=2, restarts=2)
        assert torch.equal(attacked.images, images)


def test_leaves_misclassified_images_alone(linear_problem, keys):
    model, images, labels = linear_problem
    labels[::2] = 1 - labels[::2]  # every other image starts out misclassified; the rest keep the loop going
    attacked = fab(model, images, labels, budget=Linf(8 / 255), keys=keys)
    assert torch.equal(attacked.images[::2], images[::2])
    assert not torch.equal(attacked.images[1::2], images[1::2])
    assert (attacked.forwards[::2] == 1).all()
    assert (attacked.backwards[::2] == 0).all()


def test_works_on_images_at_the_edge_of_the_box(linear_problem, keys):
    model, images, _ = linear_problem
    images = images.round().clamp(0, 1)
    labels = model(images).argmax(dim=1)
    signs = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * model.weight.sign()
    radius = 0.5
    strongest = (images + radius * signs).clamp(0, 1)
    possible = model(strongest).argmax(dim=1) != labels
    attacked = fab(model, images, labels, budget=Linf(radius), keys=keys)
    assert torch.equal(model(attacked.images).argmax(dim=1) != labels, possible)


def plane(position):
    """Two classes, parted where the first pixel is at ``position``."""

    def model(images):
        seen.append(images.detach())
        score = images[:, 0, 0, 0] - position
        return torch.stack([-score, score], dim=1)

    seen = []
    return model, seen


def test_leans_towards_the_clean_image():
    model, seen = plane(0.6)
    image, start = torch.tensor([0.5, 0.5]).view(1, 1, 1, 2), torch.tensor([0.5, 0.7]).view(1, 1, 1, 2)
    keys, label = Keys(0, "t", torch.arange(1)), torch.tensor([0])
    fab(model, image, label, budget=L2(0.01), keys=keys, start=start, steps=2)
    # Both ways to the plane are .1 long: 5 % further from both points, with weights .9 and .1; then 90 % of that.
    torch.testing.assert_close(seen[1].flatten(), torch.tensor([0.605, 0.9 * 0.7 + 0.1 * 0.5]))
    torch.testing.assert_close(seen[2].flatten(), torch.tensor([0.5 + 0.9 * 0.105, 0.5 + 0.9 * 0.18]))


@pytest.mark.parametrize("norm", ATTACKS["fab"].facts.norms)
def test_does_not_count_what_the_box_cuts_off(norm):
    model, seen = plane(0.999)
    image = torch.tensor([0.9, 0.5]).view(1, 1, 1, 2)  # 5 % beyond the plane lies outside the box
    budget, keys, label = NORMS[norm](0.1003), Keys(0, "t", torch.arange(1)), torch.tensor([0])
    attacked = fab(model, image, label, budget=budget, keys=keys)
    assert attacked.images[0, 0, 0, 0] == 1
    assert all(images.min() >= 0 and images.max() <= 1 for images in seen)


def test_rounding_to_pixels_does_not_leave_the_budget(linear_problem, keys):
    model, images, labels = linear_problem
    weight, radius = model.weight, 1e-6  # a few dozen steps of float32
    signs = torch.where(labels == 1, 1.0, -1.0)
    wanted = signs * torch.linspace(0.9, 1, 64) * radius * weight.abs().sum() / NEAREST
    images = images - ((model.score(images) - wanted) / weight.square().sum()).view(-1, 1, 1, 1) * weight
    assert torch.equal(model(images).argmax(dim=1), labels)
    attacked = fab(model, images, labels, budget=Linf(radius), keys=keys)
    assert (model(attacked.images).argmax(dim=1) != labels).sum() > 32
    assert Linf(radius).contains(attacked.images, images).all()


def test_refuses_images_outside_the_unit_range(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        fab(model, images * 255, labels, budget=Linf(8 / 255), keys=keys)


def test_refuses_labels_and_targets_that_the_model_does_not_have(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        fab(model, images, labels + 1, budget=Linf(0.1), keys=keys)
    with pytest.raises(ValueError, match="int64 class indices"):
        fab(model, images, labels.int(), budget=Linf(0.1), keys=keys)
    with pytest.raises(ValueError, match="target 2 does not exist"):
        fab(model, images, labels, budget=Linf(0.1), keys=keys, target=2)


@pytest.mark.parametrize("budget", [Linf(0.005), L2(0.03), L1(0.15)])
def test_result_does_not_depend_on_the_rest_of_the_batch(linear_problem, keys, budget):
    model, images, labels = linear_problem
    options = {"budget": budget, "steps": 3, "restarts": 2}
    together = fab(model, images, labels, keys=keys, **options)
    fooled = model(together.images).argmax(dim=1) != labels
    assert 0 < fooled.sum() < 64
    for i in (int(fooled.nonzero()[0]), int((~fooled).nonzero()[0])):
        alone = fab(model, images[i : i + 1], labels[i : i + 1], keys=keys[i : i + 1], **options)
        assert torch.equal(alone.images, together.images[i : i + 1])
        assert alone.forwards == together.forwards[i]
        assert alone.backwards == together.backwards[i]


class CountingModel(nn.Module):
    """Counts the images that pass through, and those whose pass keeps its graph."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen, self.traced = model, 0, 0

    def forward(self, images):
        self.seen += len(images)
        self.traced += len(images) * torch.is_grad_enabled()
        return self.model(images)


@pytest.mark.parametrize("restarts", [1, 3])
def test_counts_every_pass_and_drops_fooled_images(linear_problem, keys, restarts):
    model, images, labels = linear_problem
    counting = CountingModel(model)
    attacked = fab(counting, images, labels, budget=Linf(0.005), keys=keys, steps=5, restarts=restarts)
    fooled = model(attacked.images).argmax(dim=1) != labels
    assert counting.seen == attacked.forwards.sum()
    assert (attacked.forwards[~fooled] == 2 * 5 * restarts).all()
    assert (attacked.backwards[~fooled] == 5 * restarts).all()
    assert (attacked.forwards[fooled] < 2 * 5 * restarts).all()
    assert counting.traced * 2 <= counting.seen + fooled.sum()  # every other pass keeps no graph
    first = fab(model, images, labels, budget=Linf(0.005), keys=keys, steps=5)
    done = model(first.images).argmax(dim=1) != labels
    assert torch.equal(attacked.forwards[done], first.forwards[done])  # they do not meet the next restart


class Ring(nn.Module):
    """Flat but for a thin shell: only a start near it has a slope to follow."""

    def forward(self, images):
        distance = (images - 0.5).flatten(1).amax(dim=1)
        return torch.stack([torch.zeros_like(distance), torch.relu(distance - 0.03) - 0.02], dim=1)


def test_restarts_find_more(keys):
    images, labels = torch.full((64, 1, 2, 2), 0.5), torch.zeros(64, dtype=torch.int64)
    fooled = [
        Ring()(fab(Ring(), images, labels, budget=Linf(0.1), keys=keys, steps=3, restarts=r).images).argmax(
            dim=1
        )
        for r in (1, 4)
    ]
    assert fooled[0].sum() == 0  # the clean image has no slope
    assert fooled[1].sum() > 32


@pytest.mark.parametrize("norm", ATTACKS["fab"].facts.norms)
def test_restarts_begin_half_a_radius_away(keys, norm):
    seen = []

    def model(images):
        seen.append(images.detach())
        return torch.stack([1 + 0 * images.flatten(1).sum(dim=1), 0 * images.flatten(1).sum(dim=1)], dim=1)

    images, labels = torch.full((64, 1, 4, 4), 0.5), torch.zeros(64, dtype=torch.int64)
    budget = NORMS[norm](torch.linspace(0.01, 0.2, 64))
    fab(model, images, labels, budget=budget, keys=keys, steps=1, restarts=3)
    assert torch.equal(seen[0], images)
    for start in (seen[2], seen[4]):
        torch.testing.assert_close(budget.distance(start, images), torch.full((64,), 0.5), atol=1e-4, rtol=0)
    assert not torch.equal(seen[2], seen[4])


def test_begins_at_a_given_start(linear_problem, keys):
    model, images, labels = linear_problem
    budget = Linf(0.02)
    signs = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * model.weight.sign()
    start = images + 0.019 * signs
    fooled = model(start).argmax(dim=1) != labels
    assert fooled.sum() > 32
    options = {"budget": budget, "keys": keys}
    attacked = fab(model, images, labels, start=start, **options)
    torch.testing.assert_close(attacked.images[fooled], start[fooled])
    assert (attacked.forwards[fooled] == 1).all()
    from_probe = fab(model, images, labels, start=model.probe(start), **options)
    assert torch.equal(from_probe.images, attacked.images)
    # From far outside the budget it comes back to the boundary and finds whatever there is to find.
    outside = fab(model, images, labels, start=(images + 0.3 * signs).clamp(0, 1), **options)
    possible = reach_of(budget, model.weight, images) > NEAREST * model.score(images).abs()
    assert torch.equal(model(outside.images).argmax(dim=1) != labels, possible)
    assert budget.contains(outside.images, images).all()


def test_leaves_the_model_as_it_was(generator):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)).train()
    images, labels = torch.rand(4, 3, 2, 2, generator=generator), torch.zeros(4, dtype=torch.int64)
    fab(model, images, labels, budget=Linf(0.1), keys=Keys(0, "t", torch.arange(4)), steps=3)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not images.requires_grad
