"""TRADES and MART: their losses in plain formulas, the passes that they make, and PART as the same objective."""

import weakref
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Perturbed
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import mart, standard, trades
from counterpart.objectives.mart import loss_of_mart
from counterpart.objectives.trades import loss_of_trades
from counterpart.seeding import Keys, seeded

EPS = 8 / 255
KEYS = Keys(0, "train", torch.arange(6))
CONSTANT = rules.constant
PART = partial(rules.draw_budget, eps_low=4 / 255)


@pytest.fixture
def model():
    with seeded(1):
        return create("resnet18", 4, width=8)


@pytest.fixture
def batch(generator):
    return Batch(torch.rand(6, 3, 32, 32, generator=generator), torch.arange(6) % 4, torch.arange(6))


class Table(torch.nn.Module):
    """Logits by image, whatever the image: the first pixel says which row."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.nn.Parameter(rows)

    def forward(self, images):
        return self.rows[(images[:, 0, 0, 0] * 100).round().long()]


@pytest.fixture
def told(generator):
    """A table model, a batch of clean images (rows 0 to 3), and attacked ones (rows 4 to 7)."""
    rows = 2 * torch.randn(8, 5, generator=generator)
    clean, attacked = torch.zeros(4, 1, 2, 2), torch.zeros(4, 1, 2, 2)
    clean[:, 0, 0, 0], attacked[:, 0, 0, 0] = torch.arange(4) / 100, torch.arange(4, 8) / 100
    batch = Batch(clean, torch.tensor([0, 3, 1, 4]), torch.arange(4))
    return Table(rows), batch, Perturbed(attacked)


@pytest.mark.parametrize("bn_batches", ["separate", "joint"])
def test_the_trades_loss_is_its_formula(told, bn_batches):
    model, batch, perturbed = told
    loss = loss_of_trades(model, batch, perturbed, beta=6.0, bn_batches=bn_batches)
    p, q = model.rows[:4].softmax(1), model.rows[4:].softmax(1)
    expected = -p[torch.arange(4), batch.labels].log().mean() + 6 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(loss.total, expected)
    (ours,) = torch.autograd.grad(loss.total, model.rows)
    (theirs,) = torch.autograd.grad(expected, model.rows)
    torch.testing.assert_close(ours, theirs)
    assert (ours.abs().sum(dim=1) > 0).all()  # through clean and attacked answers


@pytest.mark.parametrize("bn_batches", ["separate", "joint"])
def test_the_mart_loss_is_its_formula(told, bn_batches):
    model, batch, perturbed = told
    loss = loss_of_mart(model, batch, perturbed, beta=6.0, bn_batches=bn_batches)
    p, q, rows = model.rows[:4].softmax(1), model.rows[4:].softmax(1), torch.arange(4)
    wrong = torch.stack([torch.cat([q[i, :y], q[i, y + 1 :]]).max() for i, y in enumerate(batch.labels)])
    boosted = (-q[rows, batch.labels].log() - (1 - wrong).log()).mean()
    expected = boosted + 6 * ((p * (p / q).log()).sum(1) * (1 - p[rows, batch.labels])).mean()
    torch.testing.assert_close(loss.total, expected, rtol=1e-3, atol=1e-4)  # its small constants
    (gradient,) = torch.autograd.grad(loss.total, model.rows)
    assert (gradient.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("loss_of", [loss_of_trades, loss_of_mart])
def test_terms_add_up_and_the_accuracy_is_that_of_attacked_images(told, loss_of):
    model, batch, perturbed = told
    with torch.no_grad():
        rows = model.rows
        rows[4:] = 0.0
        rows[[4, 5, 6], batch.labels[:3]] = 1.0  # three of four right
        rows[7, 0] = 1.0
        rows[:4] = 0.0
    loss = loss_of(model, batch, perturbed, beta=3.0, bn_batches="separate")
    assert loss.terms["accuracy"] == 0.75
    torch.testing.assert_close(
        loss.total.detach(), loss.terms["natural_loss"] + 3 * loss.terms["robust_loss"]
    )
    assert not any(term.requires_grad for term in loss.terms.values())


@pytest.mark.parametrize("loss", [loss_of_trades, loss_of_mart])
def test_a_clean_answer_of_probability_zero_leaves_the_gradient_finite(told, loss):
    model, batch, perturbed = told
    with torch.no_grad():
        model.rows[0, 1] += 200
    assert (model.rows[0].softmax(0) == 0).any()
    total = loss(model, batch, perturbed, beta=6.0, bn_batches="separate").total
    (gradient,) = torch.autograd.grad(total, model.rows)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [loss_of_trades, loss_of_mart])
def test_smoothing_changes_the_cross_entropy_and_nothing_else(told, loss):
    """A fifth of each label is spread over all five classes: .84 for the true one, .04 for each other."""
    model, batch, perturbed = told
    plain, smooth = (
        loss(model, batch, perturbed, beta=6.0, bn_batches="separate", label_smoothing=share)
        for share in (0.0, 0.2)
    )
    logs = (model.rows[:4] if loss is loss_of_trades else model.rows[4:]).log_softmax(1)
    labels = torch.full((4, 5), 0.04).scatter(1, batch.labels[:, None], 0.84)
    change = -(labels * logs).sum(1).mean() + logs[torch.arange(4), batch.labels].mean()
    assert abs(change) > 0.01
    torch.testing.assert_close(smooth.total - plain.total, change)
    torch.testing.assert_close(smooth.terms["robust_loss"], plain.terms["robust_loss"])


def test_without_its_robust_term_trades_is_clean_training(model, batch):
    objective = trades(budget=Linf(EPS), rule=CONSTANT, steps=1, beta=0.0)
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    ours = objective.loss(model, batch, Perturbed(batch.images))
    model.load_state_dict(state)
    theirs = standard().loss(model, batch, Perturbed(batch.images))
    torch.testing.assert_close(ours.total, theirs.total)


def test_joint_batch_norm_sees_both_halves_at_once(model, batch):
    """Each way its own statistics: twice a half, or once the whole."""
    attacked = Perturbed((batch.images * 0.2).clone())
    seen = {}
    for way in ("separate", "joint"):
        copy = create("resnet18", 4, width=8)
        copy.load_state_dict(model.state_dict())
        copy.train()
        loss_of_trades(copy, batch, attacked, beta=6.0, bn_batches=way)
        norm = next(m for m in copy.modules() if isinstance(m, torch.nn.BatchNorm2d))
        seen[way] = int(norm.num_batches_tracked), norm.running_mean.clone()
    assert (seen["separate"][0], seen["joint"][0]) == (2, 1)
    assert not torch.allclose(seen["separate"][1], seen["joint"][1])


class Counting:
    """A view that counts its passes, remembers what was probed, and wants one graph at a time."""

    def __init__(self, view):
        self.view, self.calls, self.probes, self.graphs = view, 0, [], []

    def __call__(self, images):
        self.calls += 1
        return self.view(images)

    def probe(self, images):
        assert all(graph() is None for graph in self.graphs)
        self.probes.append(images.clone())
        probe = self.view.probe(images)
        self.graphs.append(weakref.ref(probe.features))
        return probe


@pytest.mark.parametrize(("make", "drawn_from", "passes"), [
    (trades, "clean", 1 + 3), (trades, "start", 1 + 3), (mart, "start", 3), (mart, "clean", 1 + 3),
])  # fmt: skip
def test_no_pass_is_made_twice(model, batch, make, drawn_from, passes):
    view = Counting(InferenceView(model))
    made = make(budget=Linf(EPS), rule=PART, steps=3, drawn_from=drawn_from).perturb(view, batch, KEYS)
    assert view.calls + len(view.probes) == passes
    assert made.budget.contains(made.images, batch.images).all()
    clean = [torch.equal(images, batch.images) for images in view.probes]
    assert clean.count(True) == (make is trades or drawn_from == "clean")


@pytest.mark.parametrize("make", [trades, mart])
def test_the_attack_begins_at_small_normal_noise(model, batch, make):
    """The same noise as in earlier versions: trainings that were begun with them go on."""
    view = Counting(InferenceView(model))
    make(budget=Linf(EPS), rule=PART, steps=3, drawn_from="start").perturb(view, batch, KEYS)
    begin = (batch.images + 0.001 * KEYS.fold("noise").normal(0, (3, 32, 32))).clamp(0, 1)
    assert torch.equal(view.probes[-1], begin)


@pytest.mark.parametrize(("make", "loss_of"), [(trades, loss_of_trades), (mart, loss_of_mart)])
def test_the_robust_term_weighs_six_and_labels_are_not_smoothed(told, make, loss_of):
    """As in the PART paper."""
    usual = make(budget=Linf(EPS), rule=CONSTANT, steps=3).loss(*told).total
    assert torch.equal(usual, loss_of(*told, beta=6.0, bn_batches="separate").total)


@pytest.mark.parametrize("make", [trades, mart])
def test_equal_radii_reproduce_the_base_method_bit_for_bit(model, batch, make):
    view = InferenceView(model)
    equal = partial(rules.draw_budget, eps_low=EPS)
    both = [
        make(budget=Linf(EPS), rule=r, steps=3).perturb(view, batch, KEYS).images for r in (equal, CONSTANT)
    ]
    assert torch.equal(*both)


def test_the_trades_attack_increases_the_divergence_from_the_clean_answer(model, batch):
    view = InferenceView(model)
    attacked = trades(budget=Linf(EPS), rule=CONSTANT, steps=5).perturb(view, batch, KEYS).images
    clean = view(batch.images)
    near = (batch.images + 0.001 * KEYS.fold("noise").normal(0, (3, 32, 32))).clamp(0, 1)

    def divergence(images):
        return F.kl_div(view(images).log_softmax(1), clean.softmax(1), reduction="batchmean")

    assert divergence(attacked) > 10 * divergence(near)
