"""The audit flags broken defences by name, with the behaviour that shows it, and lets honest models pass."""

import pytest
import torch
from tests.audit.defences import DEFENCES, defence, digits
from tests.audit.honest import MODELS, train

import counterpart as cp

EFFORT = {"steps": 50, "queries": 200, "draws": 30, "points": 199}
HONEST = {"steps": 50, "queries": 100, "draws": 20, "points": 99, "traced": 40}

BLACK_BOX = "white-box attacks beat black-box"
PLANTED = "attacks find what is planted"
SILENT = "no silent success"
ZERO = "gradients are there and not zero"
CARRY = "attacks carry over to the model"
DOUBTS = "the model raises no doubts"
THROUGH = "straight-through gradients find nothing new"

FIRES = {
    "k-winners-take-all": {BLACK_BOX, PLANTED, THROUGH},
    "input quantisation": {BLACK_BOX, PLANTED, ZERO, THROUGH},
    "thermometer code": {BLACK_BOX, PLANTED, ZERO, THROUGH},
    "random resizing": {SILENT, CARRY, DOUBTS},
    "distillation": {BLACK_BOX, PLANTED, ZERO},
    "steep softplus": {BLACK_BOX, ZERO},
    "mean sparse": {THROUGH},
    "detector that abstains": {BLACK_BOX, ZERO},
    "dropout at test time": {SILENT, CARRY, DOUBTS},
    "bounded logits": {BLACK_BOX, DOUBTS},
    "JPEG step": {BLACK_BOX, PLANTED, ZERO, THROUGH},
    "ensemble of probabilities": {DOUBTS},
}
SAYS = {
    "k-winners-take-all": (THROUGH, "1 (Winners)"),
    "input quantisation": (THROUGH, "before (Quantised)"),
    "thermometer code": (THROUGH, "before (Thermometer)"),
    "random resizing": (DOUBTS, "random answers"),
    "mean sparse": (THROUGH, "1 (Sparse), 4 (Sparse)"),
    "dropout at test time": (DOUBTS, "random answers"),
    "bounded logits": (DOUBTS, "bounded outputs"),
    "JPEG step": (THROUGH, "before (Jpeg)"),
    "ensemble of probabilities": (DOUBTS, "probabilities"),
}


@pytest.fixture(scope="module")
def audited():
    """A function that audits a defence on 150 test digits, or a few."""
    _, _, images, labels = digits()

    def of(name, n=150, **effort):
        return cp.audit(defence(name), (images[:n], labels[:n]), eps=0.1, **{**EFFORT, **effort})

    return of


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in DEFENCES])
def test_a_broken_defence_is_flagged_by_name(audited, name):
    audit = audited(name, n=300)
    assert {behaviour.name for behaviour in audit.suspicious} >= FIRES[name]
    if name in SAYS:
        behaviour, words = SAYS[name]
        assert words in audit[behaviour].verdict


def test_a_quantiser_is_flagged_and_attacked_past(audited):
    audit = audited("input quantisation", n=60, steps=20, queries=60, points=49)
    assert {behaviour.name for behaviour in audit.suspicious} >= FIRES["input quantisation"]
    numbers = audit[THROUGH].numbers
    assert numbers["PGD"] < 0.1
    assert numbers["PGD, straight-through"] > 0.7
    assert "before (Quantised)" in audit[THROUGH].verdict
    assert "necessary, not sufficient" in repr(audit)
    assert "SUSPICIOUS" in repr(audit)
    assert "forward" in audit.cost


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), MODELS)
def test_an_honest_model_raises_no_alarm(name, seed, tmp_path):
    run = train(name, seed, tmp_path)
    audit = cp.audit(run.path, n=100, **HONEST)
    assert audit.suspicious == []
    assert audit[PLANTED].numbers["planted"] > 0.9


def test_a_model_without_any_gradient_is_audited_and_flagged():
    _, _, images, labels = digits()
    flat = torch.nn.Linear(64, 10, bias=False)
    centres = torch.stack([images[labels == k].mean(dim=0).flatten() for k in range(10)])
    flat.weight.data = centres / centres.norm(dim=1, keepdim=True)

    class Cut(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flat = flat

        def forward(self, images):
            return self.flat(images.detach().flatten(1))

    audit = cp.audit(Cut(), (images[:60], labels[:60]), eps=0.1, steps=5, queries=50, draws=5, points=30)
    assert {behaviour.name for behaviour in audit.suspicious} >= {BLACK_BOX, PLANTED, ZERO, DOUBTS, THROUGH}
    assert audit[ZERO].verdict == "answers have no gradient: attacks cannot climb"
    assert "the model itself (Cut)" in audit[THROUGH].verdict
