"""What holds for every attack that looks for the nearest adversarial image."""

from functools import partial

import pytest
import torch
from torch import nn

from counterpart.attacks.carlini_wagner import carlini_wagner
from counterpart.attacks.decoupled_direction_norm import ddn
from counterpart.attacks.deepfool import deepfool
from counterpart.attacks.fast_adaptive_boundary import fab
from counterpart.attacks.fast_minimum_norm import fmn
from counterpart.attacks.minimum_norm import share_of
from counterpart.budget import L1, L2, NORMS, Linf
from counterpart.models.inference import InferenceView
from counterpart.seeding import Keys, seeded

SHORT_SEARCH = {"search_steps": 5, "steps": 50, "learning_rate": 0.02}
NORMS_WITH_RADIUS = ("linf", "l2", "l1")
ATTACKS = {
    "deepfool linf": (deepfool, "linf"),
    "deepfool l2": (deepfool, "l2"),
    "ddn l2": (ddn, "l2"),
    **{f"fmn {norm}": (partial(fmn, steps=50), norm) for norm in NORMS_WITH_RADIUS},
    "carlini_wagner l2": (partial(carlini_wagner, **SHORT_SEARCH), "l2"),
}
DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}
every_attack = pytest.mark.parametrize(("attack", "norm"), ATTACKS.values(), ids=ATTACKS)


def plain_norm(perturbation, norm):
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(perturbation.flatten(1), order, dim=1)


@every_attack
def test_says_how_far_and_returns_what_the_budget_allows(away_from_plane, keys, attack, norm):
    model, images, labels, distance = away_from_plane(norm)
    eps = distance.sort().values[31:33].mean()
    budget = NORMS[norm](float(eps))
    attacked = attack(model, images, labels, budget=budget, keys=keys)
    torch.testing.assert_close(attacked.distances, plain_norm(attacked.nearest - images, norm))
    torch.testing.assert_close(attacked.distances, distance, rtol=0.03, atol=0)
    assert (model(attacked.nearest).argmax(dim=1) != labels).all()
    inside = attacked.distances <= eps
    assert 10 < inside.sum() < 54
    assert torch.equal(attacked.images[inside], attacked.nearest[inside])
    assert torch.equal(attacked.images[~inside], images[~inside])
    assert budget.contains(attacked.images, images).all()


@every_attack
def test_one_run_tells_of_every_radius(away_from_plane, keys, attack, norm):
    model, images, labels, _ = away_from_plane(norm)
    wide, narrow = (attack(model, images, labels, budget=NORMS[norm](eps), keys=keys) for eps in (0.9, 0.001))
    torch.testing.assert_close(narrow.distances, wide.distances, rtol=1e-4, atol=0)
    torch.testing.assert_close(narrow.nearest, wide.nearest)
    assert torch.equal(narrow.images, images)


@every_attack
def test_frozen_pixels_stay_and_the_others_go_as_far_as_they_must(away_from_plane, keys, attack, norm):
    model, images, labels, _ = away_from_plane(norm)
    movable = (torch.arange(8) >= 2).float().expand(64, 1, 8, 8)
    budget = Linf(0.5 * movable) if norm == "linf" else NORMS[norm](0.9, movable)
    start = (images + 0.01).clamp(0, 1)
    for begin in (None, start):
        attacked = attack(model, images, labels, budget=budget, keys=keys, start=begin)
        moved = attacked.nearest != images
        assert not (moved & (movable == 0)).any()
        if begin is None:
            slope = (model.weight * movable).flatten(1)
            distance = model.score(images).abs() / torch.linalg.vector_norm(slope, DUAL[norm], dim=1)
            torch.testing.assert_close(attacked.distances, distance, rtol=0.04, atol=0)


@pytest.mark.parametrize("attack", [deepfool, fmn])
def test_a_radius_for_each_pixel_is_the_measure(away_from_plane, keys, generator, attack):
    """Distance is the share of the budget that is used, times its largest radius: planes scale with one number."""
    model, images, labels, _ = away_from_plane("linf")
    radius = 0.02 * torch.rand(64, 1, 8, 8, generator=generator)
    radius[:, :, 0] = 0
    budget = Linf(radius)
    attacked = attack(model, images, labels, budget=budget, keys=keys)
    largest = radius.flatten(1).amax(dim=1)
    reach = (model.weight.abs() * radius).flatten(1).sum(dim=1)
    torch.testing.assert_close(
        attacked.distances, largest * model.score(images).abs() / reach, rtol=0.03, atol=0
    )
    torch.testing.assert_close(attacked.distances, budget.distance(attacked.nearest, images) * largest)
    for factor in (0.5, 1.0, 3.0):
        scaled = Linf(factor * radius)
        assert torch.equal(
            scaled.contains(attacked.nearest, images), attacked.distances <= scaled.size(images)
        )
    fooled = budget.contains(attacked.nearest, images)
    assert torch.equal(attacked.images != images, (attacked.nearest != images) & fooled.view(-1, 1, 1, 1))


@every_attack
def test_images_of_a_budget_without_room_are_not_fooled(away_from_plane, keys, attack, norm):
    model, images, labels, _ = away_from_plane(norm)
    for budget in (NORMS[norm](0.0), NORMS[norm](torch.zeros(64))):
        attacked = attack(model, images, labels, budget=budget, keys=keys)
        assert attacked.distances.isinf().all()
        assert torch.equal(attacked.nearest, images)
        assert torch.equal(attacked.images, images)


@every_attack
def test_wrong_images_come_back_at_distance_0(away_from_plane, keys, attack, norm):
    model, images, labels, _ = away_from_plane(norm)
    labels[::2] = 1 - labels[::2]
    for start in (None, (images + 0.1).clamp(0, 1)):
        attacked = attack(model, images, labels, budget=NORMS[norm](0.9), keys=keys, start=start)
        assert torch.equal(attacked.images[::2], images[::2])
        assert torch.equal(attacked.nearest[::2], images[::2])
        assert (attacked.distances[::2] == 0).all()
        assert (attacked.forwards[::2] == 1).all()
        assert (attacked.backwards[::2] == 0).all()
        assert (attacked.distances[1::2] > 0).all()
    everything_wrong = attack(
        model, images, 1 - model(images).argmax(dim=1), budget=NORMS[norm](0.9), keys=keys
    )
    assert (everything_wrong.distances == 0).all()


@every_attack
def test_result_does_not_depend_on_the_rest_of_the_batch(away_from_plane, keys, attack, norm):
    model, images, labels, distance = away_from_plane(norm)
    labels[5] = 1 - labels[5]
    budget = NORMS[norm](float(distance.median()))
    together = attack(model, images, labels, budget=budget, keys=keys)
    for i in (0, 5, 63):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], budget=budget, keys=keys[i : i + 1])
        assert torch.equal(alone.images, together.images[i : i + 1])
        assert torch.equal(alone.nearest, together.nearest[i : i + 1])
        assert alone.distances == together.distances[i]
        assert alone.forwards == together.forwards[i]
        assert alone.backwards == together.backwards[i]


@every_attack
@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_flat_model_is_not_fooled_and_nothing_is_nan(keys, attack, norm, constant):
    images, labels = (
        torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.zeros(64).long(),
    )

    def model(x):  # with a gradient, which is zero; of equal logits the first is the answer
        logits = torch.tensor([constant, 0.0, -constant])
        return logits + 0 * x.flatten(1)[:, :3]

    attacked = attack(model, images, labels, budget=NORMS[norm](0.9), keys=keys)
    assert attacked.distances.isinf().all()
    assert torch.equal(attacked.nearest, images)
    assert torch.equal(attacked.images, images)


@every_attack
def test_a_flat_image_beside_others_changes_nothing(away_from_plane, keys, attack, norm):
    model, images, labels, _ = away_from_plane(norm)

    def half_flat(x):
        flat = torch.tensor([-1.0, 1.0]) * (2 * labels[:1] - 1)
        return torch.where(
            x.flatten(1)[:, :1] == images[0].flatten()[:1], flat + 0 * x.flatten(1)[:, :2], model(x)
        )

    keys, images, labels = keys[:2], images[:2], labels[:2]
    attacked = attack(half_flat, images, labels, budget=NORMS[norm](0.9), keys=keys)
    expected = attack(model, images, labels, budget=NORMS[norm](0.9), keys=keys)
    torch.testing.assert_close(attacked.distances[1], expected.distances[1])
    assert attacked.distances.isfinite()[1]


@every_attack
def test_a_batch_of_no_images(linear_problem, keys, attack, norm):
    model, images, labels = linear_problem
    attacked = attack(model, images[:0], labels[:0], budget=NORMS[norm](0.1), keys=keys[:0])
    assert attacked.images.shape == attacked.nearest.shape == (0, 3, 8, 8)
    assert attacked.distances.shape == attacked.forwards.shape == attacked.backwards.shape == (0,)


class CountingModel(nn.Module):
    """Counts the images that pass through."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, 0

    def forward(self, images):
        self.seen += len(images)
        return self.model(images)


@every_attack
def test_counts_every_forward_pass(away_from_plane, keys, attack, norm):
    model, images, labels, _ = away_from_plane(norm)
    labels[:7] = 1 - labels[:7]
    counting = CountingModel(model)
    attacked = attack(counting, images, labels, budget=NORMS[norm](0.9), keys=keys)
    assert counting.seen == attacked.forwards.sum()


@every_attack
def test_begins_at_a_given_start(away_from_plane, keys, attack, norm):
    model, images, labels, distance = away_from_plane(norm)
    signs = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    direction = {"linf": model.weight.sign(), "l2": model.weight / model.weight.norm()}.get(
        norm, (model.weight.abs() == model.weight.abs().max()) * model.weight.sign()
    )
    start = images + 1.001 * distance.view(-1, 1, 1, 1) * signs * direction  # hardly beyond the plane
    options = {"budget": NORMS[norm](0.9), "keys": keys}
    attacked = attack(model, images, labels, start=start, **options)
    assert (attacked.distances <= 1.0011 * distance).all()
    from_probe = attack(model, images, labels, start=model.probe(start), **options)
    assert torch.equal(from_probe.nearest, attacked.nearest)


@every_attack
def test_leaves_the_model_as_it_was_and_takes_a_view_of_it(attack, norm):
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        )
        images = torch.rand(8, 1, 4, 4)
    labels = model.eval()(images).argmax(dim=1)
    options = {"budget": NORMS[norm](0.9), "keys": Keys(0, "t", torch.arange(8))}
    attacked = attack(model, images, labels, **options)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not attacked.nearest.requires_grad
    assert not attacked.distances.requires_grad
    assert attacked.distances.isfinite().sum() >= 4
    seen = attack(InferenceView(model), images, labels, **options)
    torch.testing.assert_close(seen.distances, attacked.distances, rtol=0.02, atol=1e-3)


@every_attack
def test_refuses_what_is_no_image_label_or_problem(linear_problem, keys, attack, norm):
    model, images, labels = linear_problem
    options = {"budget": NORMS[norm](0.1), "keys": keys}
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        attack(model, images * 255, labels, **options)
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        attack(model, images, labels + 1, **options)
    with pytest.raises(ValueError, match="2 classes or more, got 1"):
        attack(lambda x: model(x)[:, :1], images, 0 * labels, **options)


@pytest.mark.parametrize("norm", NORMS_WITH_RADIUS)
def test_fab_says_how_near_it_came(away_from_plane, keys, norm):
    model, images, labels, distance = away_from_plane(norm)
    labels[::8] = 1 - labels[::8]
    right = torch.arange(64) % 8 != 0
    attacked = fab(model, images, labels, budget=NORMS[norm](0.5 * float(distance.min())), keys=keys)
    assert torch.equal(attacked.images, images)
    torch.testing.assert_close(attacked.distances[right], distance[right], rtol=0.01, atol=0)
    assert (attacked.distances[~right] == 0).all()
    torch.testing.assert_close(attacked.distances, plain_norm(attacked.nearest - images, norm))
    inside = fab(
        model, images, labels, budget=NORMS[norm](0.9), keys=keys
    )  # ends at the first that is allowed
    assert torch.equal(inside.images, inside.nearest)


def test_shares_are_parts_of_the_largest_radius():
    images = torch.full((2, 1, 2, 2), 0.5)
    radius = torch.tensor([[0.1, 0.2], [0.0, 0.05]]).expand(2, 1, 2, 2) * torch.tensor([1.0, 0]).view(
        2, 1, 1, 1
    )
    expected = torch.tensor([[0.5, 1.0], [0.0, 0.25]])
    torch.testing.assert_close(share_of(Linf(radius), images)[0, 0], expected)
    assert (share_of(Linf(radius), images)[1] == 0).all()
    assert (share_of(Linf(torch.tensor([0.3, 0.1])), images) == 1).all()
    assert torch.equal(share_of(L1(4.0, (radius > 0).float()), images), (radius > 0).float())
    assert (share_of(L2(torch.tensor([2.0, 0.0])), images) == torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)).all()
