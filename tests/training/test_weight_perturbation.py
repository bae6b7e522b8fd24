"""AWP: solved by hand on a linear model, undone to the bit, and combined with every method and option."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from counterpart import build
from counterpart.batch import Batch
from counterpart.config import resolve
from counterpart.contracts import Loss, Objective, Perturbed
from counterpart.errors import NotFinite
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import standard
from counterpart.seeding import seeded
from counterpart.training.optimizers import sgd
from counterpart.training.step import LoopOptions, Phase, train_step
from counterpart.training.weight_average import averaged
from counterpart.training.weight_perturbation import adversarial_weights, buffers_kept

CPU = torch.device("cpu")


def take_step(model, batch, objective, lr=0.1, weight_decay=0.0, epoch=0, view=None, **changes):
    """One training step of ``train_step``, and what it measured."""
    optimizer = sgd(model, lr=lr, momentum=0.0, nesterov=False, weight_decay=weight_decay, decay_norm=True)
    settings = LoopOptions(len(batch), 0, CPU, None, **changes)
    view = view or InferenceView(model)
    return train_step(batch, len(batch), epoch, 0, model, view, Phase("p", 3, objective), optimizer, settings)


@pytest.fixture
def problem(generator):
    """Six images of four pixels, and a linear model of three classes."""
    images = torch.rand(6, 1, 2, 2, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return model, Batch(images, torch.arange(6) % 3, torch.arange(6))


def gradients(weight, bias, batch):
    """Of the mean cross-entropy of a linear model, in closed form."""
    flat = batch.images.flatten(1)
    wrong = (flat @ weight.T + bias).softmax(1) - F.one_hot(batch.labels, 3)
    return wrong.T @ flat / len(batch), wrong.mean(dim=0)


def test_a_step_by_hand(problem):
    model, batch = problem
    weight, bias = (p.detach().clone() for p in model.parameters())
    up, _ = gradients(weight, bias, batch)
    worst = weight + 0.05 * weight.norm() * up / up.norm()  # biases stay
    by_weight, by_bias = gradients(worst, bias, batch)
    measured = take_step(model, batch, standard(), awp=0.05, weight_decay=0.3)
    torch.testing.assert_close(model[1].weight, weight - 0.1 * (by_weight + 0.3 * weight))
    torch.testing.assert_close(model[1].bias, bias - 0.1 * (by_bias + 0.3 * bias))
    at_worst = F.cross_entropy(batch.images.flatten(1) @ worst.T + bias, batch.labels)
    assert measured["loss"] / 6 == pytest.approx(float(at_worst))
    assert at_worst > F.cross_entropy(batch.images.flatten(1) @ weight.T + bias, batch.labels)


def test_every_layer_moves_by_its_own_norm_and_comes_back_to_the_bit(generator):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    model[0].weight.data *= 100
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)
    before = copy.deepcopy(model.state_dict())
    with adversarial_weights(model, 0.01):
        for layer in (0, 3):
            moved = model[layer].weight.detach() - before[f"{layer}.weight"]
            assert float(moved.norm() / before[f"{layer}.weight"].norm()) == pytest.approx(0.01, rel=1e-4)
            assert F.cosine_similarity(moved.flatten(), model[layer].weight.grad.flatten(), dim=0) > 0.999
        for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
            assert torch.equal(model.state_dict()[name], before[name])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError), adversarial_weights(model, 0.01):
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_where_the_gradient_is_zero_a_layer_stays(problem):
    model, _ = problem
    model[1].weight.grad = torch.zeros(3, 4)
    before = model[1].weight.detach().clone()
    with adversarial_weights(model, 0.5):
        assert torch.equal(model[1].weight, before)


def test_batch_norm_sees_the_perturbed_weights_and_nothing_else(generator):
    batch = Batch(torch.rand(8, 1, 4, 4, generator=generator), torch.arange(8) % 2, torch.arange(8))
    with seeded(0):
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    worst, start = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    model.train()
    with buffers_kept(model):
        F.cross_entropy(model(batch.images), batch.labels).backward()
        assert not torch.equal(model[1].running_mean, start["1.running_mean"])
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    with torch.no_grad(), adversarial_weights(model, 0.2):
        worst.load_state_dict(model.state_dict())
        worst.train()(batch.images)
    take_step(model, batch, standard(), lr=0.0, awp=0.2)
    assert int(model[1].num_batches_tracked) == 1
    torch.testing.assert_close(model[1].running_mean, worst[1].running_mean)
    torch.testing.assert_close(model[1].running_var, worst[1].running_var)
    assert torch.equal(model[0].weight, start["0.weight"])


def test_it_begins_after_its_warm_up(problem):
    model, batch = problem
    ends = {}
    for epoch, awp in itertools.product((0, 1, 2), (0.0, 0.1)):
        one = copy.deepcopy(model)
        take_step(one, batch, standard(), epoch=epoch, awp=awp, awp_warmup=2)
        ends[epoch, awp] = one[1].weight.detach()
    same = [torch.equal(ends[epoch, 0.0], ends[epoch, 0.1]) for epoch in (0, 1, 2)]
    assert same == [True, True, False]


def test_images_are_attacked_once_and_both_passes_draw_the_same_dropout(problem):
    model, batch = problem
    drawn, crafted, real = [], [], standard()

    def perturb(view, batch, keys):
        crafted.append(1)
        return Perturbed(batch.images, counts={"radius": torch.tensor(3.0)})

    def loss(model, batch, perturbed):
        drawn.append(F.dropout(torch.ones(64), 0.5))
        return real.loss(model, batch, perturbed)

    measured = take_step(model, batch, Objective(perturb, loss), awp=0.1)
    assert (len(crafted), len(drawn)) == (1, 2)
    assert torch.equal(*drawn)
    assert (measured["images"], measured["radius"]) == (6, 3.0)


def test_a_gradient_that_is_not_finite_stops_the_step_and_leaves_the_weights(problem):
    """Only on the way up: where the weights have moved, nothing would tell."""
    model, batch = problem
    before, passes, real = model[1].weight.detach().clone(), [], standard()

    def loss(model, batch, perturbed):
        passes.append(1)
        made = real.loss(model, batch, perturbed)
        rest = (made.total - made.total.detach()).sqrt() * 0 if len(passes) == 1 else 0
        return Loss(made.total + rest, made.terms)

    with pytest.raises(NotFinite):
        take_step(model, batch, Objective(lambda view, batch, keys: Perturbed(batch.images), loss), awp=0.1)
    assert torch.equal(model[1].weight, before)


METHODS = ["clean", "at", "trades", "mart", "part", "part-t", "part-m", "minimum-margin", "n-fgsm"]


@pytest.mark.parametrize("method", METHODS)
def test_smoothing_perturbation_and_averaging_combine_with_every_method(method, generator):
    batch = Batch(torch.rand(4, 1, 8, 8, generator=generator), torch.arange(4), torch.arange(4))
    with seeded(2):
        model = create("wrn-10-1", 4, width=2, in_channels=1, image_size=8)
    view, ends = InferenceView(model), []
    for smoothing, awp in itertools.product((0.0, 0.2), (0.0, 0.05)):
        changes = {"method": method, "label_smoothing": smoothing, "awp": awp, "ema": 0.9}
        attack = {"steps": 1}
        if method in ("minimum-margin", "n-fgsm"):
            changes["method"] = "part"
            attack = {"generation": method, "steps": 1 if method == "minimum-margin" else 10}
        config = resolve({"train": changes, "attack": attack, "mask": {"burn_in": 0}})
        one = copy.deepcopy(model)
        average = averaged(one, 0.9)
        average.update_parameters(one)
        precision = "bf16" if smoothing and awp else "float32"
        objective = build.build_phases(config)[0].objective
        measured = take_step(one, batch, objective, view=view, awp=awp, precision=precision, clip_norm=0.5)
        average.update_parameters(one)
        now, then, mean = (m.state_dict()["backbone.fc.weight"] for m in (one, model, average.module))
        torch.testing.assert_close(mean, 0.9 * then + 0.1 * now)
        assert 0 < float((now - then).norm()) < 0.1 * 0.5
        assert measured["loss"] > 0
        ends.append(now)
    assert not any(torch.allclose(a, b, rtol=0, atol=1e-6) for a, b in itertools.combinations(ends, 2))
