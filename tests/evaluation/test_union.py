"""Unions of budgets: the worst case per image over several norms, each judged as it is alone."""

import json
from collections import Counter

import pytest
import torch
from tests.conftest import LinearModel
from torch import nn

import counterpart as cp
from counterpart import jobs
from counterpart.config import resolve
from counterpart.errors import UserError
from counterpart.evaluation.ledger import LedgerRow
from counterpart.evaluation.summaries import unite

UNION = {"linf": 0.06, "l2": 0.07, "l1": 0.2}


class Linear(nn.Module):
    """Two classes, by the sign of w.x + b."""

    def __init__(self, weight, bias):
        super().__init__()
        self.inner = LinearModel(weight, bias)

    def forward(self, images):
        return self.inner(images)


@pytest.fixture
def problem():
    """A linear model of three classes: many pixels speak a little for class 1, and a single pixel for class 2.

    So Linf fells other images than L1.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).requires_grad_(False)
    nn.init.zeros_(model[1].weight)
    model[1].weight[1] = 1 / 48
    model[1].weight[2, 0] = 0.5
    model[1].bias.copy_(torch.tensor([0.57, 0.0, 0.25]))
    images = 0.2 + 0.4 * torch.rand(200, 1, 1, 1, generator=torch.Generator().manual_seed(1)).repeat(
        1, 3, 4, 4
    )
    images[:, 0, 0, 0] = 0.6 * torch.rand(200, generator=torch.Generator().manual_seed(2))
    return model, images, model(images).argmax(dim=1)


def test_a_union_is_the_logical_and_of_its_norms(problem):
    model, images, labels = problem
    options = {"attacks": [{"attack": "pgd", "steps": 40}], "changes": {"evaluate.chunk_size": 64}}
    union = cp.evaluate(model, (images, labels), norm=[*UNION], eps=[*UNION.values()], **options)
    alone = {
        norm: cp.evaluate(model, (images, labels), norm=norm, eps=eps, **options)
        for norm, eps in UNION.items()
    }
    stands = [
        all(row.fooled_by == "" for row in rows)
        for rows in zip(*(a.rows for a in alone.values()), strict=True)
    ]
    assert [row.fooled_by == "" for row in union.rows] == stands
    assert (
        union["worst case"].value
        == sum(stands) / len(stands)
        < min(a["worst case"].value for a in alone.values())
    )
    assert union.keys() == ["clean", *UNION, "worst case"]
    for norm, judged in alone.items():
        assert union[norm].value == judged["worst case"].value == union.members[norm]["worst case"].value
        assert [row.fooled for row in union.members[norm].rows] == [row.fooled for row in judged.rows]
        assert union.members[norm].verify()
    assert union["worst case"].eps == tuple(UNION.values())


def test_of_a_linear_model_it_is_the_smallest_of_the_closed_forms():
    weight = torch.ones(1, 2, 2)
    images = torch.tensor([0.53, 0.507, 0.502]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone()
    model = Linear(weight, -2.0)  # scores 0.12, 0.028 and 0.008, all of class 1
    labels = model(images).argmax(dim=1)
    # Linf moves the score by 4 eps, L2 by 2 eps and L1 by eps.
    union = cp.evaluate(model, (images, labels), attacks="pgd", norm="linf,l2,l1", eps="0.001,0.002,0.04")
    assert [union[norm].value for norm in ("linf", "l2", "l1", "worst case")] == pytest.approx(
        [1, 1, 1 / 3, 1 / 3]
    )
    union = cp.evaluate(model, (images, labels), attacks="pgd", norm="l1,linf", eps="0.002,0.005")
    assert [union[norm].value for norm in ("l1", "linf", "worst case")] == pytest.approx([1, 2 / 3, 2 / 3])


def row(index, fooled=(), clean=0, answer=0, passes=1):
    return LedgerRow(index, 0, clean, fooled, answer, passes, passes)


def test_rows_of_several_norms_become_one():
    linf = [row(5), row(7, ("PGD",), answer=2), row(8)]
    l2 = [row(5, ("FAB",), answer=3), row(7, ("FAB",), answer=1), row(8, clean=4, answer=4)]
    first, second, third = unite({"linf": linf, "l2": l2})
    assert (first.fooled, first.answer, first.forwards) == (("l2: FAB",), 3, 2)
    assert (second.fooled, second.answer) == (("linf: PGD", "l2: FAB"), 2)
    assert not third.right
    with pytest.raises(ValueError, match="over the same images"):
        unite({"linf": linf, "l2": l2[::-1]})


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    settings = {
        "name": "digits",
        "runs": str(tmp_path_factory.mktemp("runs")),
        "device": "cpu",
        "data": {"limit": 200},
        "model": {"name": "wrn-10-1", "width": 8},
        "train": {"method": "clean", "epochs": 1, "precision": "float32", "validation_n": 20},
    }
    return jobs.train(resolve(settings)).run


def test_each_norm_has_the_ledger_that_it_has_alone(digits, capsys):
    few = {"n": 20, "attacks": [{"steps": 2}]}
    changes = {"evaluate": {**few, "norm": "linf,l2", "eps": "2/255,0.2"}}
    [judged] = jobs.evaluate(str(digits.path), changes)
    assert "linf 0.007843 or l2 0.2, n = 20" in " ".join(capsys.readouterr().out.split())
    folders = sorted(path.name for path in (digits.path / "evaluations").iterdir())
    assert folders == sorted(member.case.key for member in judged.members.values())
    records = [r for r in digits.records() if r.name.startswith("union/")]
    assert [r.name for r in records] == ["union/clean", "union/linf", "union/l2", "union/worst case"]
    assert records[-1].details["norm"] == "linf,l2"
    assert records[-1].details["eps"] == [2 / 255, 0.2]
    assert sorted(records[-1].details["evaluations"].values()) == folders
    before = digits.records_file.read_text()
    jobs.evaluate(str(digits.path), changes)  # again, and a norm alone: nothing new
    jobs.evaluate(str(digits.path), {"evaluate": {**few, "norm": "l2", "eps": 0.2}})
    assert digits.records_file.read_text() == before
    assert Counter(json.loads(line)["name"] for line in before.splitlines())["accuracy/worst case"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm": "linf,l2"}, "evaluate.norm linf,l2 is a union of 2 budgets, and evaluate.eps has 0 radii"),
        ({"norm": "linf,l2", "eps": "0.1,0.2,0.3"}, "a union of 2 budgets, and evaluate.eps has 3 radii"),
        ({"norm": "l2,linf", "eps": "0.5,8"}, "evaluate.eps 8 exceeds the image range"),
        ({"norm": "l2,l2", "eps": "1,2"}, "named once"),
        ({"norm": "l2,l7", "eps": "1,2"}, "one of linf, l2, l1"),
        (
            {"norm": "linf,l2", "eps": "0.1,0.2", "eps_low": 0.1},
            "evaluate.eps_low goes with a single evaluate.eps",
        ),
    ],
)
def test_a_union_that_is_none_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        resolve({"evaluate": settings})


def test_what_does_not_fit_a_norm_is_refused_before_the_first_is_attacked(problem):
    model, images, labels = problem
    with pytest.raises(UserError, match="attack deepfool has no l1"):
        cp.evaluate(model, (images, labels), attacks="deepfool", norm="linf,l1", eps="0.1,1")


def test_a_union_has_no_images_of_its_own_and_is_not_audited(problem):
    model, images, labels = problem
    union = cp.evaluate(model, (images[:4], labels[:4]), attacks="fgsm", norm="linf,l2", eps="0.1,1")
    with pytest.raises(UserError, match="a union has members, linf, l2"):
        union.images("FGSM")
    with pytest.raises(UserError, match="name one norm"):
        cp.audit(model, (images[:4], labels[:4]), norm="linf,l2", changes={"evaluate.eps": "0.1,1"})
