import pytest
import torch

from counterpart.seeding import Keys, derive, seeded


@pytest.fixture
def many():
    return Keys(0, "pgd", torch.arange(500))


def test_draws_do_not_depend_on_the_rest_of_the_batch(many):
    together = many.uniform(3, (2, 5))
    assert torch.equal(many[7:9].uniform(3, (2, 5)), together[7:9])
    assert torch.equal(Keys(0, "pgd", torch.tensor([499, 2])).normal(3, (4,)), many.normal(3, (4,))[[499, 2]])


@pytest.mark.parametrize(
    "other",
    [
        Keys(1, "pgd", torch.arange(500)),
        Keys(0, "square", torch.arange(500)),
        Keys(0, "pgd", torch.arange(500) + 500),
        Keys(0, "pgd", torch.arange(500)).fold(0),
    ],
)
def test_every_ingredient_changes_the_draws(many, other):
    ours, theirs = many.uniform(0, (8,)).flatten(), other.uniform(0, (8,)).flatten()
    assert (ours == theirs).float().mean() < 0.01
    assert abs(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) < 0.06


def test_steps_and_streams_differ(many):
    first = many.uniform(0, (8,))
    assert (first == many.uniform(1, (8,))).float().mean() < 0.01
    assert (first == many.uniform(0, (8,), stream=1)).float().mean() < 0.01


def test_draws_follow_their_distributions(many):
    uniform = many.uniform(0, (100,)).flatten().sort().values
    assert uniform[0] >= 0
    assert uniform[-1] < 1
    ideal = (torch.arange(50_000) + 0.5) / 50_000
    assert (uniform - ideal).abs().max() < 1.63 / 50_000**0.5 * 1.2  # Kolmogorov-Smirnov, 1 % level and some
    normal = many.normal(0, (100,))
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02
    assert abs((normal**4).mean() - 3) < 0.15
    neighbours = torch.corrcoef(torch.stack([normal[:, :-1].flatten(), normal[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours) < 0.02
    counts = many.integers(0, 5).bincount(minlength=5)
    assert counts.sum() == 500
    assert counts.min() > 60


def test_draws_are_frozen():
    """Changing the generator changes every published result: these bits must never move."""
    keys = Keys(0, "pgd", torch.tensor([0, 1, 49_999]))
    assert keys.bits(0, (2,)).tolist() == FROZEN
    assert derive(0, "order", 3) == 228291028133782092


FROZEN = [
    [9199667018183599162, 5487994679047561440],
    [-7652998406157544722, -2305543494961225232],
    [6436220334227394342, 4498873944556409972],
]


def test_seeded_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_keys_go_where_they_are_wanted_and_draw_the_same():
    keys = Keys(3, "test", torch.arange(4))
    assert keys.to(torch.device("cpu")) is keys
    moved = keys.to(torch.device("meta"))
    assert (moved.seed, moved.attack, moved.index.device.type) == (3, "test", "meta")
