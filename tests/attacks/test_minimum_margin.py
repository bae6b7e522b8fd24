import pytest
import torch

from counterpart.attacks.minimum_margin import minimum_margin
from counterpart.budget import L2, Linf

EPS = {"linf": 0.015, "l2": 0.12}


class Linear:
    """Ten classes; keeps how many images it was asked about."""

    def __init__(self, generator):
        self.weight, self.asked = torch.randn(10, 192, generator=generator), 0

    def __call__(self, images):
        self.asked += len(images)
        return images.flatten(1) @ self.weight.T

    def margins(self, images, labels, norm):
        """(B, 10) how far each class gets above the true one at best; no pixel is near the box."""
        apart = self.weight - self.weight[labels][:, None]
        reach = EPS[norm] * (apart.abs().sum(-1) if norm == "linf" else apart.norm(dim=-1))
        logits = images.flatten(1) @ self.weight.T
        return (logits - logits.gather(1, labels[:, None]) + reach).scatter(1, labels[:, None], -torch.inf)


@pytest.fixture
def problem(generator):
    model = Linear(generator)
    images = 0.5 + 0.05 * torch.randn(64, 3, 8, 8, generator=generator)
    return model, images, model(images).argmax(dim=1)


def ranked(model, images, labels):
    """(B, 9) the wrong classes, most likely first."""
    return model(images).scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True)[:, :9]


@pytest.mark.parametrize("budget", [Linf(EPS["linf"]), L2(EPS["l2"])], ids=["linf", "l2"])
@pytest.mark.parametrize(("targets", "steps"), [(1, 20), (9, 20)])
def test_is_exact_on_a_linear_model(problem, keys, budget, targets, steps):
    model, images, labels = problem
    margins = model.margins(images, labels, budget.norm)
    reached = margins.gather(1, ranked(model, images, labels)[:, :targets])
    possible, clear = (reached > 0).any(dim=1), (margins.abs() > 0.02).all(dim=1)
    assert 10 < (possible & clear).sum() < clear.sum() - 10
    attacked = minimum_margin(model, images, labels, budget=budget, keys=keys, targets=targets, steps=steps)
    fooled = model(attacked.images).argmax(dim=1) != labels
    assert budget.contains(attacked.images, images).all()
    assert fooled[possible & clear].all()
    assert not fooled[(margins < 0).all(dim=1) & clear].any()
    assert torch.equal(attacked.images[~fooled], images[~fooled])


def test_takes_one_target_after_the_other(problem, keys):
    model, images, labels = problem
    model.asked = 0
    attacked = minimum_margin(model, images, labels, budget=Linf(EPS["linf"]), keys=keys, targets=9)
    assert attacked.forwards.sum() == model.asked
    robust = model(attacked.images).argmax(dim=1) == labels
    assert (attacked.forwards[robust] == 1 + 9 * (1 + 21 + 1)).all()  # the ranking, the steps, the verdict
    assert (attacked.backwards[robust] == 9 * 20).all()
    assert (attacked.forwards[~robust] <= 24).all()  # whoever is fooled meets no further target


@pytest.mark.parametrize("targets", [0, 10])
def test_refuses_targets_that_do_not_exist(problem, keys, targets):
    model, images, labels = problem
    with pytest.raises(ValueError, match=f"1 to 9 targets for 10 classes, got {targets}"):
        minimum_margin(model, images, labels, budget=Linf(1.0), keys=keys, targets=targets)
