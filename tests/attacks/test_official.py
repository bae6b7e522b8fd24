"""The published AutoAttack package behind our interface."""

import sys

import pytest
import torch
from torch import nn

from counterpart.attacks.official import official, suite
from counterpart.budget import L1, L2, Linf
from counterpart.errors import UserError
from counterpart.seeding import Keys, seeded

KEYS = Keys(0, "official", torch.arange(8))


def test_says_what_to_install_where_the_package_is_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UserError, match=r"pip install 'counterpart\[bench\]'"):
        suite("standard", 10)


class TestWithThePackage:
    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip("pyautoattack", reason="needs the bench extra: pip install '.[bench]'")

    @pytest.fixture
    def problem(self, generator):
        with seeded(1):
            layers = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
            model = nn.Sequential(*layers).eval().requires_grad_(False)
        images = torch.rand(8, 1, 6, 6, generator=generator)
        return model, images, model(images).argmax(dim=1)

    @pytest.mark.parametrize(
        ("version", "names"),
        [
            ("standard", "apgd-ce apgd-t fab-t square"),
            ("plus", "apgd-ce apgd-dlr fab square apgd-t fab-t"),
            ("rand", "apgd-ce apgd-dlr"),
            ("few-classes", "apgd-ce fab square"),
        ],
    )
    def test_attacks_are_those_of_the_version(self, version, names):
        assert [one.name for one in suite(version, 10)] == [f"official {name}" for name in names.split()]

    @pytest.mark.parametrize(
        ("version", "classes"), [("standard", 3), ("plus", 3), ("rand", 2), ("few-classes", 1)]
    )
    def test_refuses_too_few_classes(self, version, classes):
        with pytest.raises(
            UserError, match=f"{version} needs {classes + 1} classes, this model has {classes}"
        ):
            suite(version, classes)
        suite(version, classes + 1)

    @pytest.mark.parametrize(
        "budget",
        [
            Linf(torch.full((8,), 0.1)),
            Linf(torch.full((8, 1, 6, 6), 0.1)),
            L2(0.1, torch.ones(8, 1, 6, 6)),
            L1(torch.full((8,), 0.1)),
        ],
        ids=["linf per image", "linf per pixel", "l2 frozen", "l1 per image"],
    )
    def test_refuses_radii_that_differ(self, problem, budget):
        with pytest.raises(ValueError, match="one radius for all pixels"):
            official(*problem, budget=budget, keys=KEYS, attack="apgd-ce", version="standard")

    def test_refuses_a_start(self, problem):
        options = {"attack": "apgd-ce", "version": "standard", "start": problem[1]}
        with pytest.raises(ValueError, match="takes no start"):
            official(*problem, budget=Linf(0.1), keys=KEYS, **options)

    def test_draws_from_the_seed_of_the_keys(self, problem):
        options = {"budget": Linf(0.5), "attack": "apgd-ce", "version": "standard"}
        first, again = (official(*problem, keys=KEYS, **options).images for _ in range(2))
        other = official(*problem, keys=Keys(1, "official", KEYS.index), **options).images
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    @pytest.mark.parametrize(
        ("attack", "budget"),
        [
            ("apgd-ce", L2(0.2)),
            ("apgd-ce", L1(1.0)),
            ("apgd-dlr", Linf(0.05)),
            ("apgd-t", L1(1.0)),
            ("fab", Linf(0.05)),
            ("fab-t", L2(0.2)),
        ],
        ids=repr,
    )
    def test_runs_in_every_norm_and_counts_passes(self, problem, budget, attack):
        model, images, labels = problem
        asked = []

        def counting(x):
            asked.append(len(x))
            return model(x)

        version = {"apgd-dlr": "plus", "fab": "few-classes"}.get(attack, "standard")
        attacked = official(
            counting, images, labels, budget=budget, keys=KEYS, attack=attack, version=version
        )
        assert (attacked.forwards == sum(asked) // 8).all()
        assert (attacked.backwards > 0).all()
        assert budget.contains(attacked.images, images).sum() >= 6  # theirs may leave it by rounding
