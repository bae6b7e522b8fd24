"""Losses of parts beside every objective: the paper's equations, whose images, and what it does not change."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Loss, Objective, PartModel, PartOutput, Perturbed
from counterpart.importance import rules
from counterpart.losses.segmentation import segmentation
from counterpart.objectives import adversarial, standard, trades, with_parts

FULL = Linf(0.1)
CONSTANT = rules.constant
OPTIONS = {"budget": FULL, "rule": CONSTANT, "steps": 2}


class Parted(nn.Module):
    """A part model without batch norm: a convolution to 3 maps, whose means are read by a linear layer."""

    full_resolution = False

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 2, stride=2)
        self.linear = nn.Linear(3, 2)
        self.register_buffer("part_classes", torch.tensor([0, 1]))
        self.passed = []

    def forward_parts(self, images):
        self.passed.append(images)
        part_logits = self.conv(images)
        return PartOutput(self.classify_parts(part_logits), part_logits)

    def classify_parts(self, part_logits):
        return self.linear(part_logits.softmax(dim=1).mean(dim=(2, 3)))

    def forward(self, images):
        return self.forward_parts(images).logits


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Parted()


@pytest.fixture
def batch(generator):
    return Batch(
        torch.rand(5, 3, 8, 8, generator=generator),
        torch.arange(5) % 2,
        torch.arange(5),
        parts=torch.randint(0, 3, (5, 8, 8), generator=generator),
        has_parts=torch.tensor([True, False, True, False, True]),
    )


@pytest.fixture
def attacked(batch, generator):
    return Perturbed((batch.images + 0.1 * torch.rand(batch.images.shape, generator=generator)).clamp(0, 1))


def part_loss(model, images, batch):
    """By hand: each pixel's cross-entropy on repeated logits; the mean counts every image."""
    logits = F.interpolate(model.conv(images), (8, 8), mode="nearest")
    each = F.cross_entropy(logits, batch.parts, reduction="none").mean(dim=(1, 2))
    return each[batch.has_parts].sum() / len(batch)


def agree(model, loss, expected):
    torch.testing.assert_close(loss.total, expected)
    ours = torch.autograd.grad(loss.total, list(model.parameters()))
    theirs = torch.autograd.grad(expected, list(model.parameters()))
    for mine, hers in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, hers, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("c_seg", [0.3, 1.0])
@pytest.mark.parametrize("base", [standard(), adversarial(**OPTIONS)])
def test_equations_5_and_8(model, batch, attacked, base, c_seg):
    objective = with_parts(base, c_seg=c_seg)
    assert objective.perturb is base.perturb
    loss = objective.loss(model, batch, attacked)
    classes = F.cross_entropy(model(attacked.images), batch.labels)
    expected = (1 - c_seg) * classes + c_seg * part_loss(model, attacked.images, batch)
    agree(model, loss, expected)
    assert set(loss.terms) == {"accuracy", "part_loss"}


@pytest.mark.parametrize("bn_batches", ["separate", "joint"])
def test_equation_10(model, batch, attacked, bn_batches):
    """Classes on the clean images, parts on the attacked ones, and the KL term in full."""
    objective = with_parts(trades(**OPTIONS, beta=3.0, bn_batches=bn_batches), c_seg=0.4)
    loss = objective.loss(model, batch, attacked)
    assert sum(map(len, model.passed)) == 10  # no further pass
    clean, moved = model(batch.images), model(attacked.images)
    divergence = F.kl_div(moved.log_softmax(1), clean.softmax(1), reduction="batchmean")
    classes = F.cross_entropy(clean, batch.labels)
    expected = 0.6 * classes + 0.4 * part_loss(model, attacked.images, batch) + 3 * divergence
    agree(model, loss, expected)


@pytest.mark.parametrize(
    ("base", "classes_on"),
    [
        (adversarial(**OPTIONS), "attacked"),
        (trades(**OPTIONS, beta=0.0, bn_batches="separate"), "clean"),
        (trades(**OPTIONS, beta=0.0, bn_batches="joint"), "clean"),
    ],
    ids=["adversarial", "trades", "trades in one batch"],
)
def test_part_logits_at_several_resolutions_count_alike(batch, attacked, base, classes_on):
    """The mean of the losses at 4 x 4, 2 x 2 and a single cell, of the attacked and annotated images."""

    class AtThree(Parted):
        def forward_parts(self, images):
            output = super().forward_parts(images)
            coarser = tuple(k * F.avg_pool2d(output.part_logits, k) for k in (2, 4))
            return PartOutput(output.logits, output.part_logits, coarser)

    torch.manual_seed(0)
    model = AtThree()
    loss = with_parts(base, c_seg=0.4).loss(model, batch, attacked)
    by_hand = []
    for k in (1, 2, 4):
        maps = k * F.avg_pool2d(model.conv(attacked.images), k)
        each = F.cross_entropy(F.interpolate(maps, (8, 8), mode="nearest"), batch.parts, reduction="none")
        by_hand.append(each.mean(dim=(1, 2))[batch.has_parts].sum() / len(batch))
    seen = attacked.images if classes_on == "attacked" else batch.images
    expected = 0.6 * F.cross_entropy(model(seen), batch.labels) + 0.4 * sum(by_hand) / 3
    agree(model, loss, expected)
    torch.testing.assert_close(loss.terms["part_loss"], sum(by_hand) / 3)


def test_without_its_weight_an_objective_is_itself():
    base = standard()
    assert with_parts(base, c_seg=0) is base


def test_shares_of_a_batch_add_up_to_the_whole_however_annotation_falls(model, batch, attacked):
    """What two processes do: each its share, weighted by its size."""
    objective = with_parts(trades(**OPTIONS), c_seg=0.5)

    def gradient(chosen):
        loss = objective.loss(model, batch.select(chosen), Perturbed(attacked.images[chosen]))
        return torch.autograd.grad(loss.total, model.conv.weight)[0]

    whole = gradient(slice(0, 5))
    shares = 2 / 5 * gradient(slice(0, 2)) + 3 / 5 * gradient(slice(2, 5))
    torch.testing.assert_close(shares, whole)
    unlabelled = gradient(slice(1, 2))  # a batch without any annotation
    assert unlabelled.isfinite().all()


def test_the_model_is_told_which_loss_to_take(model, batch, attacked):
    seen = []

    def loss(output, batch, part_classes, full_resolution):
        seen.append((len(output.logits), part_classes.tolist(), full_resolution))
        return segmentation(output, batch, part_classes, full_resolution)

    model.full_resolution = True
    with_parts(standard(), c_seg=0.5, part_loss=loss).loss(model, batch, attacked)
    assert seen == [(5, [0, 1], True)]


def test_label_smoothing_is_the_objectives_own(model, batch, attacked):
    def smoothed(model, batch, perturbed):
        return Loss(F.cross_entropy(model(perturbed.images), batch.labels, label_smoothing=0.2), {})

    base = Objective(standard().perturb, smoothed)
    loss = with_parts(base, c_seg=0.5, label_smoothing=0.2).loss(model, batch, attacked)
    classes = F.cross_entropy(model(attacked.images), batch.labels, label_smoothing=0.2)
    agree(model, loss, 0.5 * classes + 0.5 * part_loss(model, attacked.images, batch))


def test_a_stand_in_is_a_part_model(model):
    assert isinstance(model, PartModel)
