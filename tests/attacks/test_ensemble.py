import pytest
import torch

from counterpart.attacks.ensemble import worst_case
from counterpart.budget import Linf
from counterpart.contracts import Attacked, NamedAttack, Probe
from counterpart.seeding import Keys

IMAGES = torch.linspace(0.05, 0.45, 6).view(6, 1, 1, 1).expand(6, 1, 2, 2).clone()
LABELS = torch.zeros(6, dtype=torch.int64)
KEYS = Keys(0, "test", torch.arange(10, 16))
BUDGET = Linf(torch.full((6,), 0.5))


def model(images):
    """Class 1 is bright."""
    bright = images.mean(dim=(1, 2, 3)) - 0.5
    return torch.stack([-bright, bright], dim=1)


class Scripted:
    """Fools the images with some indices, at 3 forward and 2 backward passes, and remembers what it was given."""

    def __init__(self, *fools):
        self.fools, self.calls = torch.tensor(fools), []

    def __call__(self, model, images, labels, *, budget, keys, start=None):
        self.calls.append((images, budget, keys, start))
        fooled = torch.isin(keys.index, self.fools).view(-1, 1, 1, 1)
        passes = torch.full_like(labels, 3)
        return Attacked(torch.where(fooled, 0.9, images + 0.01), passes, passes - 1)


def run(attacks, rows=slice(None), **options):
    named = [NamedAttack(name, attack, name) for name, attack in attacks.items()]
    budget = options.pop("budget", BUDGET).select(rows)
    options = {"keys": KEYS[rows], "budget": budget} | options
    return worst_case(model, IMAGES[rows], LABELS[rows], attacks=named, **options)


def test_each_attack_meets_what_the_earlier_ones_left():
    first, second, third = Scripted(10, 13), Scripted(10, 11), Scripted()
    attacked = run({"first": first, "second": second, "third": third})
    met = [one.calls[0][2].index.tolist() for one in (first, second, third)]
    assert met == [[10, 11, 12, 13, 14, 15], [11, 12, 14, 15], [12, 14, 15]]
    images, budget, _, _ = third.calls[0]
    assert torch.equal(images, IMAGES[[2, 4, 5]])
    assert budget.eps.shape == (3,)
    fooled = torch.tensor([True, True, False, True, False, False])
    assert (attacked.images[fooled] == 0.9).all()
    assert torch.equal(attacked.images[~fooled], IMAGES[~fooled])  # not where a vain attack ended
    assert attacked.forwards.tolist() == [5, 9, 13, 5, 13, 13]  # the clean image, 3 passes and a verdict each
    assert attacked.backwards.tolist() == [2, 4, 6, 2, 6, 6]


def test_ends_when_nothing_is_left_and_spares_what_is_wrong_already():
    first, second = Scripted(11, 12, 13, 14, 15), Scripted()
    attacked = worst_case(
        model,
        IMAGES,
        (torch.arange(6) == 0).long(),
        budget=BUDGET,
        keys=KEYS,
        attacks=[NamedAttack("first", first, ""), NamedAttack("second", second, "")],
    )
    assert first.calls[0][2].index.tolist() == [11, 12, 13, 14, 15]
    assert second.calls == []
    assert torch.equal(attacked.images[0], IMAGES[0])
    assert (attacked.forwards[0], attacked.backwards[0]) == (1, 0)


def test_keys_are_folded_by_name_not_by_place():
    attack, other = Scripted(), Scripted()
    run({"other": other, "pgd 5": attack})
    run({"pgd 5": attack})
    assert [keys.attack for _, _, keys, _ in attack.calls] == ["test/pgd 5"] * 2
    assert other.calls[0][2].attack == "test/other"


@pytest.mark.parametrize("probed", [False, True])
def test_every_attack_begins_at_the_start(probed):
    start = IMAGES + torch.arange(6).view(6, 1, 1, 1) / 100
    first, second = Scripted(11), Scripted()
    given = Probe(start.clone().requires_grad_(), model(start)) if probed else start
    run({"first": first, "second": second}, start=given)
    assert torch.equal(first.calls[0][3], start)
    assert torch.equal(second.calls[0][3], start[[0, 2, 3, 4, 5]])
    assert not second.calls[0][3].requires_grad


def test_result_does_not_depend_on_the_rest_of_the_batch():
    together = run({"first": Scripted(10, 13), "second": Scripted(11)})
    for i in range(6):
        alone = run({"first": Scripted(10, 13), "second": Scripted(11)}, rows=slice(i, i + 1))
        assert torch.equal(alone.images[0], together.images[i])
        assert alone.forwards[0] == together.forwards[i]
        assert alone.backwards[0] == together.backwards[i]


def test_attacks_may_depend_on_the_number_of_classes():
    attack, asked = Scripted(10), []

    def attacks(classes):
        asked.append(classes)
        return [NamedAttack("one", attack, "one")]

    attacked = worst_case(model, IMAGES, LABELS, budget=BUDGET, keys=KEYS, attacks=attacks)
    assert (attacked.images[0] == 0.9).all()
    assert asked == [2]


def test_refuses_labels_that_the_model_does_not_have():
    with pytest.raises(ValueError, match=r"label 2 is outside 0\.\.1"):
        worst_case(model, IMAGES, LABELS + 2, budget=BUDGET, keys=KEYS, attacks=[])
