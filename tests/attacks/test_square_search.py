from itertools import pairwise

import pytest
import torch
from torch import nn

from counterpart.attacks import square_search
from counterpart.attacks.square_search import square
from counterpart.budget import L1, L2, Linf
from counterpart.seeding import Keys

HALF = (torch.arange(8) < 4).float().expand(64, 1, 8, 8)


def budgets():
    generator = torch.Generator().manual_seed(5)
    per_pixel = 0.02 * torch.rand(64, 1, 8, 8, generator=generator)
    return {
        "linf number": Linf(0.01),
        "linf per image": Linf(torch.linspace(0, 0.02, 64)),
        "linf per pixel": Linf(per_pixel),
        "linf half frozen": Linf(per_pixel * HALF),
        "linf per channel": Linf(0.02 * torch.rand(64, 3, 8, 8, generator=generator)),
        "l2 number": L2(0.05),
        "l2 per image": L2(torch.linspace(0.02, 0.08, 64)),
        "l2 half frozen": L2(0.05, HALF),
        "l1 number": L1(0.4),
        "l1 per image": L1(torch.linspace(0.1, 0.8, 64)),
        "l1 half frozen": L1(0.4, HALF),
    }


@pytest.fixture(params=budgets().values(), ids=budgets().keys())
def budget(request):
    return request.param


def reach(model, images, budget):
    """How far the strongest attack shifts a linear model's score; no pixel is near the box."""
    radius = budget.radius(images).expand_as(images)
    if budget.norm == "linf":
        return (model.weight.abs() * radius).flatten(1).sum(dim=1)
    free = (model.weight * (radius > 0)).flatten(1)
    return budget.size(images) * (free.norm(dim=1) if budget.norm == "l2" else free.abs().amax(dim=1))


class Watched(nn.Module):
    """Keeps what it was asked, and refuses to be differentiated."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, images):
        assert not images.requires_grad
        assert not torch.is_grad_enabled()
        self.asked.append(images.clone())
        return self.model(images)


def test_fools_a_linear_model_where_that_is_possible(linear_problem, keys, budget):
    model, images, labels = linear_problem
    gap = reach(model, images, budget) - model.score(images).abs()
    assert 0 < (gap > 0).sum() < 64  # otherwise this test says nothing
    queries = 100 if budget.norm == "l1" else 500
    attacked = square(model, images, labels, budget=budget, keys=keys, queries=queries, rescale_schedule=True)
    fooled = model(attacked.images).argmax(dim=1) != labels
    assert budget.contains(attacked.images, images).all()
    assert not (fooled & (gap < 0)).any()
    # Noise is the hardest pattern for squares and bumps: white weights have no regions to cover.
    share = {"linf": 0.95, "l2": 0.4, "l1": 0.6}[budget.norm]
    assert fooled.sum() > share * (gap > 0).sum()


def test_judges_exactly_what_it_returns(linear_problem, keys, budget):
    model, images, labels = linear_problem
    watched = Watched(model)
    attacked = square(watched, images, labels, budget=budget, keys=keys, queries=20)
    asked = torch.cat(watched.asked)
    # Every returned image was a question, bit for bit.
    assert all((image == asked).flatten(1).all(dim=1).any() for image in attacked.images)
    assert len(asked) == attacked.forwards.sum()
    held = model(attacked.images).argmax(dim=1) == labels
    assert (attacked.forwards[held] == 22).all()  # the clean image, the pattern, the queries
    assert (attacked.backwards == 0).all()


def test_every_question_is_in_the_budget(linear_problem, keys, budget):
    model, images, labels = linear_problem
    watched = Watched(model)
    square(watched, images[:1], labels[:1], budget=budget.select(slice(0, 1)), keys=keys[:1], queries=50)
    for question in watched.asked:
        assert budget.select(slice(0, 1)).contains(question, images[:1]).all()


@pytest.mark.parametrize("grey", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("budget", [L2(0.003), L2(2.0), L1(0.01), L1(30.0)], ids=repr)
def test_rounding_never_leaves_the_budget(budget, grey, keys):
    """On a flat image every pixel rounds the same way."""
    images, labels = torch.full((4, 3, 32, 32), grey), torch.zeros(4, dtype=torch.int64)
    watched = Watched(
        lambda x: torch.stack([x.flatten(1).std(dim=1) * 0, -x.flatten(1).std(dim=1)], dim=1) - 1
    )
    square(watched, images, labels, budget=budget, keys=keys[:4], queries=60)
    assert len(watched.asked) == 62
    assert all(budget.contains(question, images).all() for question in watched.asked)
    assert not torch.equal(watched.asked[-1], images)


def test_leaves_frozen_pixels_alone(linear_problem, keys, budget):
    model, images, labels = linear_problem
    frozen = (budget.radius(images) == 0).expand_as(images)
    attacked = square(model, images, labels, budget=budget, keys=keys, queries=50)
    assert torch.equal(attacked.images[frozen], images[frozen])


def test_the_best_image_improves_with_queries(linear_problem, keys, budget):
    model, images, labels = linear_problem

    def confidence(queries):
        attacked = square(model, images, labels, budget=budget, keys=keys, queries=queries)
        return model.score(attacked.images) * torch.where(labels == 1, 1, -1)

    clean, few, many = model.score(images).abs(), confidence(10), confidence(100)
    assert (few <= clean).all()
    assert (many <= few).all()
    assert (many < few).sum() > 16


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_result_does_not_depend_on_the_rest_of_the_batch(linear_problem, keys, norm):
    model, images, labels = linear_problem
    budget = {"linf": Linf(0.005), "l2": L2(0.03), "l1": L1(0.2)}[norm]
    options = {"queries": 120 if norm != "l1" else 20, "restarts": 2}  # more than one block of draws
    together = square(model, images, labels, budget=budget, keys=keys, **options)
    for row in (9, 30):
        one = slice(row, row + 1)
        alone = square(model, images[one], labels[one], budget=budget, keys=keys[one], **options)
        assert torch.equal(alone.images, together.images[one])
        assert alone.forwards == together.forwards[row]


def test_leaves_misclassified_images_alone(linear_problem, keys, budget):
    model, images, labels = linear_problem
    labels = labels.clone()
    labels[::2] = 1 - labels[::2]
    attacked = square(model, images, labels, budget=budget, keys=keys, queries=5)
    assert torch.equal(attacked.images[::2], images[::2])
    assert (attacked.forwards[::2] == 1).all()
    assert (attacked.forwards[1::2] > 1).all()


def test_squares_reach_every_pixel_and_shrink_on_schedule(keys):
    """Every query is better than the last: so each question differs from the one before by one square."""
    images, labels = torch.full((64, 1, 16, 16), 0.5), torch.zeros(64, dtype=torch.int64)
    asked = []

    def model(x):
        asked.append(x.clone())
        return torch.tensor([0.0, -1.0]).expand(len(x), 2) + 1e-6 * torch.tensor([0, len(asked)])

    square(model, images, labels, budget=Linf(0.1), keys=keys, queries=600)
    changed = torch.stack([(new != old)[:, 0] for old, new in pairwise(asked[1:])])
    assert changed.flatten(0, 1).any(dim=0).all()  # the last row and column, too

    def side(query):  # largest extent over images: a square over like pixels changes only a part of itself
        return max(int(m.any(dim=d).sum()) for m in changed[query] for d in (0, 1))

    assert [side(q) for q in (0, 10, 11, 50, 51, 200, 201, 500, 501)] == [14, 14, 10, 10, 7, 7, 5, 5, 4]


def test_the_area_is_halved_after_the_published_queries(keys, monkeypatch):
    areas = []

    class Noted(square_search._Corners):
        def propose(self, current, draws, area):
            areas.append(area)
            return super().propose(current, draws, area)

    monkeypatch.setattr(square_search, "_moves", lambda budget, images: Noted(images, images))
    images = torch.full((1, 1, 4, 4), 0.5)
    labels = torch.zeros(1, dtype=torch.long)

    def constant(images):
        return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    options = {"queries": 1000, "p_init": 0.8, "rescale_schedule": True}
    square(constant, images, labels, budget=Linf(0.1), keys=keys[:1], **options)

    # A thousand queries stand for ten thousand: query q is at step 10 (q - 1).
    halved_after = [10 * place for place in range(999) if areas[place + 1] == areas[place] / 2]
    assert areas[0] == pytest.approx(0.8 * 16)
    assert len(areas) == 1000
    assert halved_after == [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    assert areas[-1] == areas[0] / 2**9


def test_a_rescaled_schedule_ends_with_single_pixels(keys):
    images, labels = torch.full((64, 1, 16, 16), 0.5), torch.zeros(64, dtype=torch.int64)
    asked = []

    def model(x):
        asked.append(x.clone())
        return torch.tensor([0.0, -1.0]).expand(len(x), 2) + 1e-6 * torch.tensor([0, len(asked)])

    square(model, images, labels, budget=Linf(0.1), keys=keys, queries=20, rescale_schedule=True)
    assert (asked[-1] != asked[-2]).flatten(1).sum(dim=1).max() == 1
    assert (asked[2] != asked[1]).flatten(1).sum(dim=1).max() > 50


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_first_perturbation_fills_the_ball(norm, keys):
    images, labels = torch.full((64, 3, 17, 23), 0.5), torch.zeros(64, dtype=torch.int64)
    asked = []

    def model(x):
        asked.append(x)
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    budget = {"l2": L2(0.5), "l1": L1(5.0)}[norm]
    square(model, images, labels, budget=budget, keys=keys, queries=1)
    for question in asked[1:]:
        torch.testing.assert_close(budget.distance(question, images), torch.ones(64), atol=1e-4, rtol=0)
    assert asked[1].flatten(1).unique(dim=0).shape[0] == 64  # a pattern for each image


def test_restarts_find_more_and_only_the_unfooled_go_on(linear_problem, keys):
    model, images, labels = linear_problem
    options = {"budget": Linf(0.008), "keys": keys, "queries": 3}
    once = square(model, images, labels, **options)
    often = square(model, images, labels, restarts=5, **options)
    held = [model(a.images).argmax(dim=1) == labels for a in (once, often)]
    assert held[1].sum() < held[0].sum()
    assert not (held[1] & ~held[0]).any()
    assert (often.forwards[held[1]] == 1 + 5 * 4).all()
    assert torch.equal(often.images[~held[0]], once.images[~held[0]])


def test_a_start_is_judged_first_and_built_upon(linear_problem, keys, budget):
    model, images, labels = linear_problem
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    start = (images + 0.1 * sign * model.weight).clamp(0, 1)  # outside: it enters the budget
    begin = budget.project(start, images)
    watched = Watched(model)
    attacked = square(watched, images, labels, budget=budget, keys=keys, start=start, queries=3)
    assert torch.equal(watched.asked[0], begin)
    fooled = model(begin).argmax(dim=1) != labels
    assert torch.equal(attacked.images[fooled], begin[fooled])
    assert (attacked.forwards[fooled] == 1).all()
    score = model.score(attacked.images) * -sign.flatten()
    assert (score <= model.score(begin) * -sign.flatten() + 1e-6).all()


def test_a_probe_saves_its_pass_and_changes_nothing(linear_problem, keys):
    model, images, labels = linear_problem
    options = {"budget": Linf(0.005), "keys": keys, "queries": 10}
    inside, outside = images.clone(), images.clone()
    outside[:32] += 0.01
    plain = square(model, images, labels, start=outside, **options)
    watched = Watched(model)
    probed = square(watched, images, labels, start=model.probe(outside), **options)
    assert torch.equal(plain.images, probed.images)
    assert torch.equal(plain.forwards - (outside == inside).flatten(1).all(dim=1).long(), probed.forwards)
    assert sum(map(len, watched.asked)) == probed.forwards.sum()


def test_refuses_bad_input(linear_problem, keys):
    model, images, labels = linear_problem
    options = {"budget": Linf(0.1), "keys": keys, "queries": 1}
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        square(model, images * 255, labels, **options)
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        square(model, images, labels + 1, **options)
    with pytest.raises(ValueError, match=r"share of the pixels in \(0, 1\], got 8"):
        square(model, images, labels, p_init=8, **options)


def test_leaves_the_model_as_it_was(generator):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)).train()
    images = torch.rand(4, 3, 2, 2, generator=generator)  # smaller than the smallest window of l2
    for budget in (Linf(0.1), L2(0.3), L1(0.5)):
        keys = Keys(0, "t", torch.arange(4))
        square(model, images, torch.zeros(4, dtype=torch.int64), budget=budget, keys=keys, queries=5)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_an_empty_batch_comes_back(linear_problem, keys, budget):
    model, images, labels = linear_problem
    none = slice(0, 0)
    attacked = square(model, images[none], labels[none], budget=budget.select(none), keys=keys[none])
    assert attacked.images.shape == (0, 3, 8, 8)


@pytest.mark.parametrize("budget", [L2(0.5), L1(5.0)], ids=["l2", "l1"])
def test_a_bump_takes_the_place_of_another_window(budget, keys):
    images, labels = torch.full((64, 1, 16, 16), 0.5), torch.zeros(64, dtype=torch.int64)
    asked = []

    def model(x):
        asked.append(x.clone())
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    square(model, images, labels, budget=budget, keys=keys, queries=1, p_init=0.1)
    before, after = ((question - images).flatten(1) for question in asked[1:])
    if budget.norm == "l2":  # of 5 x 5 pixels, some lie in the bump's window, and the pattern leaves a border
        emptied = ((before != 0) & (after == 0)).sum(dim=1)
        assert emptied.max() == 25
        assert (emptied > 0).float().mean() > 0.9
    torch.testing.assert_close(budget.distance(asked[2], images), torch.ones(64), atol=1e-4, rtol=0)


def test_a_tie_that_fools_is_kept(keys):
    """Equal logits count for the class that comes first, so an image may be fooled at an unchanged margin of 0."""
    images, labels = torch.full((1, 1, 8, 8), 0.5), torch.ones(1, dtype=torch.int64)
    asked = []

    def model(x):
        asked.append(x.clone())
        return torch.tensor([[0.0, 1, 1]] if len(asked) < 3 else [[1.0, 1, 0]])

    attacked = square(model, images, labels, budget=Linf(0.1), keys=keys[:1], queries=50)
    assert len(asked) == 3
    assert torch.equal(attacked.images, asked[2])
