from functools import partial

import torch

from counterpart.attacks.projected_gradient import pgd
from counterpart.attacks.transfer import transfer
from counterpart.budget import L2, Linf
from counterpart.contracts import Probe


def never(images):
    raise AssertionError("the attacked model is not asked")


def test_hands_over_what_fools_the_surrogate(linear_problem, keys):
    model, images, labels = linear_problem
    attack = partial(pgd, steps=5)
    for budget in (Linf(0.01), L2(0.05)):
        moved = transfer(never, images, labels, budget=budget, keys=keys, surrogate=model, attack=attack)
        direct = attack(model, images, labels, budget=budget, keys=keys)
        assert torch.equal(moved.images, direct.images)
        assert budget.contains(moved.images, images).all()
        assert (moved.forwards == 0).all()
        assert (moved.backwards == 0).all()


def test_a_start_is_passed_on_without_the_answers_of_the_attacked_model(linear_problem, keys):
    model, images, labels = linear_problem
    options = {"budget": Linf(0.005), "keys": keys}
    attack = partial(pgd, steps=1, step_size=0.002, last_iterate=True)
    start = Linf(0.005).sample(images, keys.fold("start"))
    leaf = start.clone().requires_grad_()
    other = Probe(leaf, -model(leaf))  # of a model that answers the opposite
    direct = attack(model, images, labels, start=start, **options)
    for given in (start, other):
        moved = transfer(never, images, labels, start=given, surrogate=model, attack=attack, **options)
        assert torch.equal(moved.images, direct.images)
    elsewhere = transfer(never, images, labels, surrogate=model, attack=attack, **options)
    assert not torch.equal(elsewhere.images, direct.images)
