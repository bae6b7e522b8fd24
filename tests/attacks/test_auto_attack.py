import inspect
import sys
from functools import partial

import pytest
import torch
from torch import nn

from counterpart.attacks import apgd, auto_attack, fab, square, worst_case
from counterpart.attacks.auto_attack import VERSIONS, finish, suite
from counterpart.budget import L1, L2, Linf
from counterpart.catalogue import ATTACKS
from counterpart.contracts import NamedAttack
from counterpart.losses.classification import dlr, margin
from counterpart.seeding import Keys, seeded

MODULE = sys.modules["counterpart.attacks.auto_attack"]  # the package has a function of that name


def told(attacks):
    """What a suite says: (name, line, function, options)."""
    whole = [one.attack if isinstance(one.attack, partial) else partial(one.attack) for one in attacks]
    return [(one.name, one.line, p.func, p.keywords) for one, p in zip(attacks, whole, strict=True)]


def targets(name, attack, count, **options):
    return [(f"{name} target {k}", name, attack, {"target": k} | options) for k in range(1, count + 1)]


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_ten_classes_and_more_are_the_published_protocol(norm, classes):
    restarts, aims = (5, 5) if norm == "l1" else (1, 9)
    assert told(suite("standard", norm, classes)) == [
        ("apgd-ce", "apgd-ce", apgd, {"restarts": restarts}),
        *targets("apgd-t", apgd, aims, loss=dlr),
        *targets("fab-t", fab, 9),
        ("square", "square", square, {}),
    ]
    assert told(suite("plus", norm, classes)) == [
        ("apgd-ce", "apgd-ce", apgd, {"restarts": 5}),
        ("apgd-dlr", "apgd-dlr", apgd, {"loss": dlr, "restarts": 5}),
        ("fab", "fab", fab, {"restarts": 5}),
        ("square", "square", square, {}),
        *targets("apgd-t", apgd, 9, loss=dlr),
        *targets("fab-t", fab, 9),
    ]
    assert told(suite("ten-steps", norm, classes)) == [
        ("10-step apgd-ce", "10-step apgd-ce", apgd, {"steps": 10}),
        *targets("10-step apgd-t", apgd, 9, loss=dlr, steps=10),
        *targets("10-step fab-t", fab, 9, steps=10),
        ("10-step square", "10-step square", square, {"rescale_schedule": True}),
    ]
    assert told(suite("rand", norm, classes)) == [
        ("apgd-ce", "apgd-ce", apgd, {"eot": 20}),
        ("apgd-dlr", "apgd-dlr", apgd, {"loss": dlr, "eot": 20}),
    ]
    assert [name for name, *_ in told(suite("few-classes", norm, classes))] == ["apgd-ce", "fab", "square"]


@pytest.mark.parametrize(
    ("attack", "published"),
    [
        (apgd, {"steps": 100, "restarts": 1, "eot": 1, "rho": 0.75}),
        (fab, {"steps": 100, "restarts": 1, "alpha_max": 0.1, "eta": 1.05, "beta": 0.9}),
        (square, {"queries": 5000, "p_init": 0.8, "restarts": 1, "rescale_schedule": False}),
    ],
)
def test_what_the_suite_leaves_unsaid_is_published_too(attack, published):
    options = inspect.signature(attack).parameters
    assert {name: options[name].default for name in published} == published


@pytest.mark.parametrize("classes", range(2, 10))
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_fewer_classes_have_as_many_targets_as_wrong_classes(version, classes):
    said = told(suite(version, "linf", classes))
    for line in ("apgd-t", "fab-t") if version != "rand" else ():
        assert [k["target"] for _, of, _, k in said if of == line] == list(range(1, classes))
    losses = {of: options["loss"] for _, of, _, options in said if "loss" in options}
    if version != "standard":
        assert losses["apgd-dlr"] is (dlr if classes >= 3 else margin)
    if version != "rand":
        assert losses["apgd-t"] is (dlr if classes >= 4 else margin)


def test_refuses_what_does_not_exist():
    with pytest.raises(
        ValueError, match="no version 'fast'; it has standard, plus, rand, few-classes, ten-steps"
    ):
        suite("fast", "linf", 10)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        suite("standard", "linf", 1)


def small(attacks):
    """The same attacks with hardly any passes."""
    length = {apgd: {"steps": 10}, fab: {"steps": 3}, square: {"queries": 5}}
    return [
        NamedAttack(name, partial(attack, **options | length[attack]), line)
        for name, line, attack, options in told(attacks)
    ]


def network(classes):
    with seeded(classes):
        layers = nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, classes)
        return nn.Sequential(*layers).eval().requires_grad_(False)


BUDGETS = {
    "linf": Linf(0.02),
    "linf frozen": Linf(
        0.05 * (torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(1)) - 0.5).clamp_min(0)
    ),
    "l2": L2(0.1),
    "l1": L1(0.6),
}


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        # no targets, no DLR with a third logit, fewer targets than nine, as many as there are
        *(("linf", k) for k in (2, 3, 4, 10)),
        pytest.param("linf", 9, marks=pytest.mark.slow),
        *((kind, 2) for kind in ("linf frozen", "l2", "l1")),
        *(pytest.param(kind, 10, marks=pytest.mark.slow) for kind in ("linf frozen", "l2", "l1")),
    ],
)
def test_every_version_runs_for_any_number_of_classes(generator, kind, classes):
    budget, model = BUDGETS[kind], network(classes)
    images = torch.rand(12, 2, 6, 6, generator=generator)
    labels = model(images).argmax(dim=1)
    keys = Keys(0, "test", torch.arange(12))
    for version in VERSIONS:
        attacks = small(suite(version, budget.norm, classes))
        attacked = worst_case(model, images, labels, budget=budget, keys=keys, attacks=attacks)
        assert budget.contains(attacked.images, images).all()
        fooled = model(attacked.images).argmax(dim=1) != labels
        assert torch.equal(attacked.images[~fooled], images[~fooled])
        if version == "standard":
            for one in attacks:  # never worse than any member
                alone = one.attack(model, images, labels, budget=budget, keys=keys.fold(one.name))
                assert fooled[model(alone.images).argmax(dim=1) != labels].all()


def shapes():
    plane = 0.02 * torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    half = (torch.arange(8) < 4).float().expand(64, 1, 8, 8)
    return {
        "linf number": Linf(0.01),
        "linf per image": Linf(torch.linspace(0, 0.02, 64)),
        "linf per pixel": Linf(plane),
        "linf per channel": Linf(plane.repeat(1, 3, 1, 1) * half),
        "l2 number": L2(0.05),
        "l2 per image": L2(torch.linspace(0.02, 0.08, 64)),
        "l2 frozen": L2(0.05, half),
        "l1 number": L1(0.3),
        "l1 per image": L1(torch.linspace(0.1, 0.5, 64)),
        "l1 frozen": L1(0.3, half),
    }


# The others are slow: each of the attacks within is held against every shape in a test of its own.
EVERY_TIME = ("linf per image", "linf per pixel", "l2 frozen", "l1 frozen")


@pytest.mark.parametrize(
    "budget",
    [
        pytest.param(budget, id=name, marks=() if name in EVERY_TIME else pytest.mark.slow)
        for name, budget in shapes().items()
    ],
)
def test_is_exact_on_a_linear_model(linear_problem, keys, monkeypatch, budget):
    """The public function, whose Square is cut short here: it comes last and finds nothing that others missed."""
    model, images, labels = linear_problem
    monkeypatch.setattr(MODULE, "square", partial(square, queries=20))
    radius = budget.radius(images).expand_as(images)
    weight = (model.weight.abs() * (radius > 0)).flatten(1)
    reach = {
        "linf": (model.weight.abs() * radius).flatten(1).sum(dim=1),
        "l2": budget.size(images) * weight.norm(dim=1),
        "l1": budget.size(images) * weight.amax(dim=1),  # no pixel is near the box
    }[budget.norm]
    gap = reach - model.score(images).abs()
    clear = gap.abs() > (0.06 if budget.norm == "l1" else 1e-3) * reach  # FAB overshoots by 5 %
    assert 0 < (gap > 0).sum() < 64
    asked = []

    def counting(x):
        asked.append(len(x))
        return model(x)

    attacked = auto_attack(counting, images, labels, budget=budget, keys=keys)

    fooled = model(attacked.images).argmax(dim=1) != labels
    assert attacked.forwards.sum() == sum(asked)
    assert budget.contains(attacked.images, images).all()
    assert torch.equal(fooled[clear], (gap > 0)[clear])
    assert torch.equal(attacked.images[~fooled], images[~fooled])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_attack_says_which_of_the_catalogue_it_is(version):
    keys = {named.line: named.key for named in suite(version, "linf", 10)}
    assert set(keys.values()) <= ATTACKS.keys() - {"autoattack"}
    for line, key in keys.items():
        assert key in line
    assert {named.key for named in finish(nn.Flatten(), "linf", 10)} == {""}  # it is never dear
