"""Square beside the published code: as many images survive, and they are the same ones but for chance."""

from itertools import combinations, product

import pytest
import torch
from torch import nn

from counterpart.attacks.square_search import square
from counterpart.budget import NORMS
from counterpart.data.digits import load_digits
from counterpart.seeding import Keys, seeded

pytestmark = pytest.mark.reference
pytest.importorskip("pyautoattack", reason="needs the published code: pip install --no-deps pyautoattack")

PUBLISHED = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS = {"linf": 0.1, "l2": 1.0, "l1": 5.0}  # half of the images survive, so that chance has its say
QUERIES = 300
SEEDS = range(3)


@pytest.fixture(scope="module")
def problem():
    """A small convolutional network that has learnt digits, and the test images that it knows."""
    splits = load_digits()
    with seeded(0):
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    images, labels = splits.train.pixels.float() / 255, splits.train.labels
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        for rows in torch.arange(len(images)).split(50):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimiser.step()
    model.eval().requires_grad_(False)
    images, labels = splits.test.pixels.float() / 255, splits.test.labels
    known = model(images).argmax(dim=1) == labels
    assert known.sum() > 350
    return model, images[known], labels[known]


def ours(problem, norm, seed):
    model, images, labels = problem
    budget, keys = NORMS[norm](EPS[norm]), Keys(seed, "square", torch.arange(len(images)))
    attacked = square(model, images, labels, budget=budget, keys=keys, queries=QUERIES)
    assert budget.contains(attacked.images, images).all()
    return model(attacked.images).argmax(dim=1) == labels


def theirs(problem, norm, seed):
    from pyautoattack.square import SquareAttack

    class Reaching(SquareAttack):
        """Its squares reach the last row and column, as ours do: at 16 px that alone fools 5 % more images."""

        def random_int(self, low=0, high=1, shape=(1,)):
            return super().random_int(low, high + 1, shape)

    model, images, labels = problem
    options = {"norm": PUBLISHED[norm], "eps": EPS[norm], "n_queries": QUERIES, "resc_schedule": False}
    found = Reaching(model, seed=seed, **options).perturb(images, labels)
    return model(found).argmax(dim=1) == labels


@pytest.mark.slow
@pytest.mark.parametrize("norm", PUBLISHED)
def test_the_same_images_survive(problem, norm):
    mine = [ours(problem, norm, seed) for seed in SEEDS]
    published = [theirs(problem, norm, seed) for seed in SEEDS]
    count = len(mine[0])

    survivors = [sum(int(one.sum()) for one in runs) / 3 for runs in (mine, published)]
    assert 0.2 * count < survivors[1] < 0.8 * count  # otherwise this test says nothing
    assert abs(survivors[0] - survivors[1]) < 0.03 * count

    among_theirs = [int((a ^ b).sum()) for a, b in combinations(published, 2)]
    between = [int((a ^ b).sum()) for a, b in product(mine, published)]
    # Three seeds give the mean number of images that chance decides within a fifth or so.
    assert sum(between) / 9 < 1.2 * sum(among_theirs) / 3
