import pytest
import torch
from torch import nn

from counterpart.attacks.rays_search import _blocks, rays
from counterpart.budget import L1, L2, Linf
from counterpart.seeding import Keys


def budgets():
    generator = torch.Generator().manual_seed(5)
    per_pixel = 0.02 * torch.rand(64, 1, 8, 8, generator=generator)
    return {
        "one number": Linf(0.006),
        "per image": Linf(torch.linspace(0, 0.02, 64)),
        "per pixel": Linf(per_pixel),
        "half frozen": Linf(per_pixel * (torch.arange(8) < 4)),
        "per channel": Linf(0.02 * torch.rand(64, 3, 8, 8, generator=generator)),
    }


@pytest.fixture(params=budgets().values(), ids=budgets().keys())
def budget(request):
    return request.param


def reach(model, images, budget):
    """How far the strongest attack shifts a linear model's score; no pixel is near the box."""
    return (model.weight.abs() * budget.radius(images).expand_as(images)).flatten(1).sum(dim=1)


class Watched(nn.Module):
    """Keeps what it was asked, answers with a class only, and refuses to be differentiated."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, images):
        assert not images.requires_grad
        assert not torch.is_grad_enabled()
        self.asked.append(images.clone())
        return nn.functional.one_hot(self.model(images).argmax(dim=1), 2).float()


def test_fools_a_linear_model_exactly_when_possible(linear_problem, keys, budget):
    """Every sign that is wrong costs, so one pass over the single values rights them all."""
    model, images, labels = linear_problem
    gap = reach(model, images, budget) - model.score(images).abs()
    possible = gap > 0
    assert 0 < possible.sum() < 64  # otherwise this test says nothing
    watched = Watched(model)
    attacked = rays(watched, images, labels, budget=budget, keys=keys, queries=2000)
    assert budget.contains(attacked.images, images).all()
    assert torch.equal(model(attacked.images).argmax(dim=1) != labels, possible)
    assert sum(map(len, watched.asked)) == attacked.forwards.sum()
    assert (attacked.forwards[~possible & (budget.size(images) > 0)] == 2001).all()
    assert (attacked.backwards == 0).all()


def test_minimise_finds_the_distance_of_a_linear_model(linear_problem, keys, budget):
    model, images, labels = linear_problem
    free = (reach(model, images, budget) > 0).nonzero()[:, 0]
    images, labels, budget, keys = images[free], labels[free], budget.select(free), keys[free]
    nearest = model.score(images).abs() / reach(model, images, budget)  # in units of the radius
    attacked = rays(model, images, labels, budget=budget, keys=keys, queries=3000, minimise=True)
    fooled = model(attacked.images).argmax(dim=1) != labels
    assert torch.equal(fooled, nearest < 1)
    assert budget.contains(attacked.images, images).all()
    # The median of the pixels: those with the smallest radii round to whole steps of float32.
    lengths = ((attacked.images - images).abs() / budget.radius(images)).flatten(1).nanmedian(dim=1).values
    torch.testing.assert_close(lengths, nearest.clamp_max(1), atol=3e-3, rtol=0)
    assert (attacked.forwards == 3001).all()


def test_stops_at_the_first_image_that_is_allowed(linear_problem, keys):
    model, images, labels = linear_problem
    budget = Linf(0.02)
    few = rays(model, images, labels, budget=budget, keys=keys, queries=600)
    many = rays(model, images, labels, budget=budget, keys=keys, queries=600, minimise=True)
    assert (model(few.images).argmax(dim=1) != labels).all()
    assert (few.forwards < many.forwards).all()
    assert (many.forwards == 601).all()
    # Length 1 is asked about before any bisection below it, so that is where images are found.
    torch.testing.assert_close(budget.distance(few.images, images), torch.ones(64), atol=1e-4, rtol=0)
    assert (budget.distance(many.images, images) < 0.999).all()


def test_judges_exactly_what_it_returns(linear_problem, keys, budget):
    model, images, labels = linear_problem
    for minimise in (False, True):
        watched = Watched(model)
        attacked = rays(watched, images, labels, budget=budget, keys=keys, queries=300, minimise=minimise)
        asked = torch.cat(watched.asked)
        fooled = model(attacked.images).argmax(dim=1) != labels
        assert 0 < fooled.sum() < 64
        assert all((image == asked).flatten(1).all(dim=1).any() for image in attacked.images[fooled])


def test_the_box_bounds_every_question(keys, generator):
    """Near black, one side is cut off: found through what is left of the other."""
    images, labels = 0.01 * torch.rand(64, 1, 4, 4, generator=generator), torch.zeros(64, dtype=torch.int64)
    weight = torch.tensor([-1.0, 1.0]).repeat(8).view(1, 4, 4)

    def model(x):
        assert x.min() >= 0
        assert x.max() <= 1
        score = (x * weight).flatten(1).sum(dim=1) - 0.7
        return torch.stack([-score, score], dim=1)

    budget = Linf(0.2)
    attacked = rays(model, images, labels, budget=budget, keys=keys, queries=1000, minimise=True)
    assert (model(attacked.images).argmax(dim=1) == 1).all()
    assert budget.contains(attacked.images, images).all()
    up, down = images[:, weight > 0].sum(dim=1), images[:, weight < 0]
    # 8 pixels rise by t, 8 fall to 0 at most: they are there long before 0.7 is reached.
    length = (0.7 - up) / 8
    assert (length > down.amax(dim=1)).all()
    torch.testing.assert_close(budget.distance(attacked.images, images), length / 0.2, atol=1e-3, rtol=0)


def test_leaves_frozen_pixels_alone(linear_problem, keys, budget):
    model, images, labels = linear_problem
    frozen = (budget.radius(images) == 0).expand_as(images)
    attacked = rays(model, images, labels, budget=budget, keys=keys, queries=100)
    assert torch.equal(attacked.images[frozen], images[frozen])


def test_images_that_cannot_move_are_asked_about_once(linear_problem, keys):
    model, images, labels = linear_problem
    attacked = rays(model, images, labels, budget=Linf(0.0), keys=keys, queries=100)
    assert torch.equal(attacked.images, images)
    assert (attacked.forwards == 1).all()


def test_result_does_not_depend_on_the_rest_of_the_batch(linear_problem, keys, budget):
    model, images, labels = linear_problem
    together = rays(model, images, labels, budget=budget, keys=keys, queries=400)
    for row in (9, 30, 63):
        one = slice(row, row + 1)
        alone = rays(model, images[one], labels[one], budget=budget.select(one), keys=keys[one], queries=400)
        assert torch.equal(alone.images, together.images[one])
        assert alone.forwards == together.forwards[row]


def test_leaves_misclassified_images_alone(linear_problem, keys):
    model, images, labels = linear_problem
    labels = labels.clone()
    labels[::2] = 1 - labels[::2]
    attacked = rays(model, images, labels, budget=Linf(0.02), keys=keys, queries=20)
    assert torch.equal(attacked.images[::2], images[::2])
    assert (attacked.forwards[::2] == 1).all()
    assert (attacked.forwards[1::2] > 1).all()


def test_a_start_is_the_first_direction(linear_problem, keys):
    model, images, labels = linear_problem
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1) * model.weight.sign()
    start = images + 1e-3 * sign
    attacked = rays(model, images, labels, budget=Linf(0.02), keys=keys, start=start, queries=2)
    assert (model(attacked.images).argmax(dim=1) != labels).all()  # far out, then at length 1
    assert (attacked.forwards == 3).all()
    torch.testing.assert_close(attacked.images, images + 0.02 * sign)
    probed = rays(model, images, labels, budget=Linf(0.02), keys=keys, start=model.probe(images), queries=50)
    plain = rays(model, images, labels, budget=Linf(0.02), keys=keys, queries=50)
    assert torch.equal(probed.images, plain.images)
    assert torch.equal(probed.forwards, plain.forwards - 1)


@pytest.mark.parametrize("count", [1, 2, 5, 64, 192])
def test_blocks_cover_the_image_ever_finer(count):
    starts, ends = _blocks(count, torch.device("cpu"))
    lengths = ends - starts
    assert lengths[:2].tolist() == [0, count]
    covered = [list(range(a, b)) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    flat = [cell for block in covered for cell in block]
    levels = len(flat) // count
    assert flat == list(range(count)) * levels  # each level covers every value once, in order
    assert lengths[-count:].tolist() == [1] * count


def test_refuses_bad_input(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        rays(model, images * 255, labels, budget=Linf(0.1), keys=keys)
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        rays(model, images, labels + 1, budget=Linf(0.1), keys=keys)
    for ball in (L2(0.5), L1(5.0)):
        with pytest.raises(ValueError, match=f"rays has no {ball.norm}: use linf"):
            rays(model, images, labels, budget=ball, keys=keys)


def test_leaves_the_model_as_it_was(generator):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)).train()
    images, labels = torch.rand(4, 3, 2, 2, generator=generator), torch.zeros(4, dtype=torch.int64)
    rays(model, images, labels, budget=Linf(0.1), keys=Keys(0, "t", torch.arange(4)), queries=10)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_an_empty_batch_comes_back(linear_problem, keys):
    model, images, labels = linear_problem
    for minimise in (False, True):
        attacked = rays(
            model, images[:0], labels[:0], budget=Linf(0.1), keys=keys[:0], queries=20, minimise=minimise
        )
        assert attacked.images.shape == (0, *images.shape[1:])
        assert (len(attacked.forwards), len(attacked.backwards)) == (0, 0)
