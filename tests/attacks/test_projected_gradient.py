import pytest
import torch
from torch import nn

from counterpart.attacks import fgsm, pgd
from counterpart.budget import L1, L2, Linf
from counterpart.losses.classification import kl_divergence, likely_class, margin
from counterpart.seeding import Keys


def linf_radii(images, generator):
    per_pixel = 0.02 * torch.rand(len(images), 1, 8, 8, generator=generator)
    return {
        "one number": 0.01,
        "per image": torch.linspace(0, 0.02, len(images)),
        "per pixel": per_pixel,
        "half frozen": per_pixel * (torch.arange(8) < 4),
        "per channel": 0.02 * torch.rand(len(images), 3, 8, 8, generator=generator),
    }


@pytest.mark.parametrize("kind", ["one number", "per image", "per pixel", "half frozen", "per channel"])
@pytest.mark.parametrize("random_start", [False, True])
def test_linf_fools_a_linear_model_exactly_when_possible(linear_problem, generator, keys, kind, random_start):
    model, images, labels = linear_problem
    budget = Linf(linf_radii(images, generator)[kind])
    # The strongest attack moves every pixel by its radius against sign(w): the score shifts by sum |w| r.
    reach = (model.weight.abs() * budget.radius(images).expand_as(images)).flatten(1).sum(dim=1)
    possible = reach > model.score(images).abs()
    assert 0 < possible.sum() < len(images)  # otherwise this test says nothing

    attacked = pgd(model, images, labels, budget=budget, keys=keys, random_start=random_start)

    assert budget.contains(attacked.images, images).all()
    assert torch.equal(model(attacked.images).argmax(dim=1) != labels, possible)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("random_start", [False, True])
def test_l2_fools_a_linear_model_exactly_when_possible(linear_problem, keys, frozen, per_image, random_start):
    model, images, labels = linear_problem
    movable = (torch.arange(8) < 4).float().expand(64, 1, 8, 8) if frozen else None
    budget = L2(torch.linspace(0.02, 0.08, 64) if per_image else 0.05, movable)
    slope = (model.weight * (1 if movable is None else movable[0])).norm()  # no pixel is near the box
    gap = slope * budget.size(images) - model.score(images).abs()
    possible = gap > 0
    assert 0 < possible.sum() < 64

    attacked = pgd(model, images, labels, budget=budget, keys=keys, steps=60, random_start=random_start)

    # A start at a right angle turns by tan(angle / 2) = exp(-2.5) in 60 such steps: cosine .987 at the end.
    resolution = 2e-2 if random_start else 1e-5
    clear = gap.abs() > resolution * slope * budget.size(images)
    assert clear.sum() > 32
    assert budget.contains(attacked.images, images).all()
    assert torch.equal((model(attacked.images).argmax(dim=1) != labels)[clear], possible[clear])


def test_l1_moves_the_steepest_pixels(linear_problem, keys):
    model, images, labels = linear_problem
    budget = L1(0.4)
    attacked = pgd(model, images, labels, budget=budget, keys=keys, random_start=False, steps=40)
    assert budget.contains(attacked.images, images).all()
    moved = (attacked.images - images).flatten(1).abs() > 0
    assert moved.sum(dim=1).max() <= 20  # 5 % of 192, and no drift into the rest
    fooled = model(attacked.images).argmax(dim=1) != labels
    top = model.weight.abs().flatten().topk(round(0.05 * 192)).values.mean()
    assert torch.equal(fooled, 0.4 * top > model.score(images).abs())


def test_leaves_frozen_pixels_alone(linear_problem, keys):
    model, images, labels = linear_problem
    eps = torch.full((64, 1, 8, 8), 8 / 255)
    eps[..., :4] = 0
    attacked = pgd(model, images, labels, budget=Linf(eps), keys=keys, loss=margin)
    assert torch.equal(attacked.images[..., :4], images[..., :4])


def test_leaves_misclassified_images_alone(linear_problem, keys):
    model, images, labels = linear_problem
    labels[::2] = 1 - labels[::2]  # every other image starts out misclassified; the rest keep the loop going
    attacked = pgd(model, images, labels, budget=Linf(8 / 255), keys=keys, random_start=False)
    assert torch.equal(attacked.images[::2], images[::2])
    assert not torch.equal(attacked.images[1::2], images[1::2])
    assert (attacked.forwards[::2] == 1).all()


def test_refuses_images_outside_the_unit_range(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        pgd(model, images * 255, labels, budget=Linf(8 / 255), keys=keys)


@pytest.mark.parametrize("last_iterate", [False, True])
def test_refuses_labels_that_the_model_does_not_have(linear_problem, keys, last_iterate):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        pgd(model, images, labels + 1, budget=Linf(0.1), keys=keys, last_iterate=last_iterate)
    with pytest.raises(ValueError, match="int64 class indices"):
        pgd(model, images, labels.int(), budget=Linf(0.1), keys=keys, last_iterate=last_iterate)


@pytest.mark.parametrize("last_iterate", [False, True])
def test_result_does_not_depend_on_the_rest_of_the_batch(linear_problem, keys, last_iterate):
    model, images, labels = linear_problem
    options = {
        "budget": Linf(0.005),
        "steps": 3,
        "restarts": 1 if last_iterate else 2,
        "last_iterate": last_iterate,
    }
    together = pgd(model, images, labels, keys=keys, **options)
    alone = pgd(model, images[9:10], labels[9:10], keys=keys[9:10], **options)
    assert torch.equal(alone.images, together.images[9:10])
    assert alone.forwards == together.forwards[9]


class CountingModel(nn.Module):
    """Counts the images that pass through."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, 0

    def forward(self, images):
        self.seen += len(images)
        return self.model(images)


@pytest.mark.parametrize("restarts", [1, 3])
def test_counts_every_forward_pass_and_drops_fooled_images(linear_problem, keys, restarts):
    model, images, labels = linear_problem
    counting = CountingModel(model)
    attacked = pgd(counting, images, labels, budget=Linf(0.005), keys=keys, steps=5, restarts=restarts)
    fooled = model(attacked.images).argmax(dim=1) != labels
    assert counting.seen == attacked.forwards.sum()
    assert (attacked.forwards[~fooled] == 6 * restarts).all()
    assert (attacked.backwards[~fooled] == 5 * restarts).all()
    assert (attacked.forwards[fooled] < 6 * restarts).any()


class Ring(nn.Module):
    """Misclassifies only a thin shell around one corner: a single start rarely finds it."""

    def forward(self, images):
        distance = (images - 0.5).flatten(1).amax(dim=1)
        return torch.stack([torch.zeros_like(distance), distance - 0.095], dim=1)


def test_restarts_find_more(keys):
    images, labels = torch.full((64, 1, 2, 2), 0.5), torch.zeros(64, dtype=torch.int64)
    options = {"budget": Linf(0.1), "keys": keys, "steps": 1, "step_size": 1e-6}
    fooled = [
        (Ring()(pgd(Ring(), images, labels, restarts=r, **options).images).argmax(dim=1) != labels).sum()
        for r in (1, 8)
    ]
    assert fooled[1] > fooled[0] + 10


def test_training_form_takes_every_step(linear_problem, keys):
    model, images, labels = linear_problem
    budget, weight = Linf(0.02), model.weight
    attacked = pgd(
        model, images, labels, budget=budget, keys=keys, steps=10, step_size=0.01, last_iterate=True
    )
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * weight.sign()
    assert torch.allclose(attacked.images, images + 0.02 * sign, atol=1e-6)  # fooled long ago, still climbing
    assert (attacked.forwards == 10).all()
    assert (attacked.backwards == 10).all()


def test_a_probe_saves_its_pass_and_changes_nothing(linear_problem, keys):
    model, images, labels = linear_problem
    budget = Linf(0.02)
    start = budget.sample(images, keys)
    options = {"budget": budget, "keys": keys, "steps": 4, "last_iterate": True}
    counting = CountingModel(model)
    from_probe = pgd(counting, images, labels, start=model.probe(start), **options)
    assert counting.seen == 3 * 64
    assert (from_probe.forwards == 3).all()
    from_images = pgd(model, images, labels, start=start, **options)
    assert torch.equal(from_probe.images, from_images.images)


def test_a_start_outside_the_budget_enters_it(linear_problem, keys):
    model, images, labels = linear_problem
    low = Linf(torch.full((64, 1, 8, 8), 0.01))
    start = Linf(0.02).sample(images, keys)
    for last_iterate in (True, False):
        attacked = pgd(
            model, images, labels, budget=low, keys=keys, start=start, steps=1, last_iterate=last_iterate
        )
        assert low.contains(attacked.images, images).all()


def test_leaves_the_model_as_it_was(generator):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)).train()
    images = torch.rand(4, 3, 2, 2, generator=generator)
    pgd(
        model, images, torch.zeros(4, dtype=torch.int64), budget=Linf(0.1), keys=Keys(0, "t", torch.arange(4))
    )
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not images.requires_grad


def test_targeted_moves_towards_the_target(keys, generator):
    weight = torch.randn(3, 192, generator=generator)
    images = 0.5 + 0.05 * torch.randn(64, 3, 8, 8, generator=generator)

    def model(x):
        return x.flatten(1) @ weight.T

    labels = model(images).argmax(dim=1)
    targets = likely_class(model(images), labels, 2)
    options = {"budget": Linf(0.01), "keys": keys, "loss": margin, "last_iterate": True}
    given = pgd(model, images, labels, target=targets, **options)
    ranked = pgd(model, images, labels, target=2, **options)
    assert torch.equal(given.images, ranked.images)  # the rank is found by one more pass on the clean images
    assert torch.equal(ranked.forwards, given.forwards + 1)
    gap = margin(model(given.images), labels, targets)
    # A linear model: the gap rises by the radius times the difference of the weights.
    rise = 0.01 * (weight[targets] - weight[labels]).abs().sum(dim=1)
    torch.testing.assert_close(gap, margin(model(images), labels, targets) + rise)


def test_kl_divergence_leaves_the_clean_answer(linear_problem, keys):
    model, images, labels = linear_problem
    attacked = pgd(
        model, images, labels, budget=Linf(0.005), keys=keys, loss=kl_divergence, last_iterate=True
    )
    # It goes on in the direction of its random start, to the end: the score shifts by all that the budget has.
    shift = (model.score(attacked.images) - model.score(images)).abs()
    torch.testing.assert_close(shift, (0.005 * model.weight.abs().sum()).expand(64))
    exact = pgd(model, images, labels, budget=Linf(0.005), keys=keys, last_iterate=True)
    assert (attacked.forwards == exact.forwards + 1).all()


def test_fgsm_is_one_step_of_one_radius(linear_problem, generator, keys):
    model, images, labels = linear_problem
    budget = Linf(linf_radii(images, generator)["per pixel"])
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * model.weight.sign()
    attacked = fgsm(model, images, labels, budget=budget, keys=keys)
    torch.testing.assert_close(attacked.images, images + sign * budget.radius(images))
    assert (attacked.backwards == 1).all()


def test_last_iterate_refuses_restarts(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="restarts=2"):
        pgd(model, images, labels, budget=Linf(0.1), keys=keys, last_iterate=True, restarts=2)
