import pytest
import torch
from torch import nn

from counterpart.attacks.random_search import random_search
from counterpart.budget import L1, L2, Linf
from counterpart.seeding import Keys

HALF = (torch.arange(8) < 4).float().expand(64, 1, 8, 8)
PLANE = 0.02 * torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))
BUDGETS = {
    "linf number": Linf(0.01),
    "linf per image": Linf(torch.linspace(0, 0.02, 64)),
    "linf half frozen": Linf(PLANE * HALF),
    "linf per channel": Linf(PLANE.repeat(1, 3, 1, 1)),
    "l2 half frozen": L2(0.05, HALF),
    "l1 per image": L1(torch.linspace(0.1, 0.8, 64)),
}


@pytest.fixture(params=BUDGETS.values(), ids=BUDGETS.keys())
def budget(request):
    return request.param


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


def test_returns_the_first_point_that_fools(linear_problem, keys, budget):
    model, images, labels = linear_problem
    attacked = random_search(model, images, labels, budget=budget, keys=keys, draws=20)
    assert budget.contains(attacked.images, images).all()
    points = torch.stack([images, *(budget.sample(images, keys.fold(draw)) for draw in range(20))])
    wrong = torch.stack([model(asked).argmax(dim=1) != labels for asked in points])
    fooled = wrong.any(dim=0)
    assert 0 < fooled.sum() < 64
    first = wrong.long().argmax(dim=0)  # 0, the clean image, where none fools
    assert torch.equal(attacked.images, points[first, torch.arange(64)])
    assert torch.equal(attacked.forwards, torch.where(fooled, first + 1, 21))
    assert (attacked.backwards == 0).all()


def test_counts_every_pass(linear_problem, keys, budget):
    model, images, labels = linear_problem
    watched = Watched(model)
    attacked = random_search(watched, images, labels, budget=budget, keys=keys, draws=5)
    assert sum(map(len, watched.asked)) == attacked.forwards.sum()


def test_result_does_not_depend_on_the_rest_of_the_batch(linear_problem, keys, budget):
    model, images, labels = linear_problem
    together = random_search(model, images, labels, budget=budget, keys=keys)
    for row in (9, 40):
        one = slice(row, row + 1)
        alone = random_search(model, images[one], labels[one], budget=budget.select(one), keys=keys[one])
        assert torch.equal(alone.images, together.images[one])
        assert alone.forwards == together.forwards[row]


def test_leaves_misclassified_images_alone(linear_problem, keys):
    model, images, labels = linear_problem
    attacked = random_search(model, images, 1 - labels, budget=Linf(0.1), keys=keys)
    assert torch.equal(attacked.images, images)
    assert attacked.images is not images
    assert (attacked.forwards == 1).all()


def test_a_start_is_judged_first(linear_problem, keys, budget):
    model, images, labels = linear_problem
    sign = torch.where(labels == 1, -1.0, 1.0).view(-1, 1, 1, 1)
    start = (images + 0.1 * sign * model.weight).clamp(0, 1)
    begin = budget.project(start, images)
    attacked = random_search(model, images, labels, budget=budget, keys=keys, start=start, draws=0)
    assert torch.equal(attacked.images, begin)
    probed = random_search(model, images, labels, budget=budget, keys=keys, start=model.probe(begin), draws=3)
    plain = random_search(model, images, labels, budget=budget, keys=keys, start=begin, draws=3)
    assert torch.equal(probed.images, plain.images)
    assert torch.equal(probed.forwards, plain.forwards - 1)


def test_refuses_bad_input(linear_problem, keys):
    model, images, labels = linear_problem
    with pytest.raises(ValueError, match="Divide 8-bit images by 255"):
        random_search(model, images * 255, labels, budget=Linf(0.1), keys=keys)
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        random_search(model, images, labels + 1, budget=Linf(0.1), keys=keys)


def test_leaves_the_model_as_it_was(generator):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2)).train()
    images, labels = torch.rand(4, 3, 2, 2, generator=generator), torch.zeros(4, dtype=torch.int64)
    random_search(model, images, labels, budget=Linf(0.1), keys=Keys(0, "t", torch.arange(4)), draws=3)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
