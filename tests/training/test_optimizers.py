import pytest
import torch
from torch import nn

from counterpart.models import create
from counterpart.training.optimizers import adamw, schedule, set_rate, sgd


def rate(name, **changes):
    options = {"lr": 1.0, "epochs": 80, "milestones": (0.75,), "gamma": 0.1, "warmup_epochs": 0.0}
    return schedule(name, **{**options, **changes})


def test_piecewise_counts_absolute_epochs():
    """The published code counts from the end of the burn-in and so decays in the last epoch only."""
    at = rate("piecewise")
    assert [at(e) for e in (0, 20, 59, 59.99)] == [1.0] * 4
    assert at(60) == pytest.approx(0.1)
    assert at(79.9) == pytest.approx(0.1)
    twice = rate("piecewise", milestones=(0.5, 0.75), epochs=8)
    assert [twice(e) for e in (3.9, 4, 5.9, 6)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_cosine_and_warmup():
    at = rate("cosine")
    assert at(0) == 1
    assert at(40) == pytest.approx(0.5)
    assert at(80) == pytest.approx(0)
    warm = rate("constant", warmup_epochs=2.0)
    assert 0 < warm(0) < 0.01
    assert warm(1) == pytest.approx(0.5, abs=1e-3)
    assert warm(2) == 1


def test_warm_up_in_steps_rises_evenly_and_never_overshoots():
    warm = rate("constant", warmup_steps=5, steps=3)
    assert [warm(step // 3 + step % 3 / 3) for step in range(7)] == pytest.approx(
        [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1]
    )
    falls = rate("cosine", epochs=2, warmup_steps=3, steps=3)
    assert falls(1) == pytest.approx(0.5)  # the schedule is that of the whole, as after warm-up in epochs


def test_decay_spares_one_dimensional_parameters_on_request():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.5}
    spared = sgd(model, decay_norm=False, **options)
    decays = {id(p): group["weight_decay"] for group in spared.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.5, 0.0, 0.0, 0.0]
    everything = sgd(model, decay_norm=True, **options)
    assert [g["weight_decay"] for g in everything.param_groups] == [0.5]
    assert sum(p.numel() for g in everything.param_groups for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )


def test_decay_spares_parameters_by_name():
    model = nn.Module()
    model.bn1, model.conv, model.down = (
        nn.BatchNorm2d(4),
        nn.Conv2d(3, 4, 3),
        nn.Sequential(nn.BatchNorm2d(4)),
    )
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.5, "decay_norm": True}
    optimizer = sgd(model, no_decay=("bias", "bn"), **options)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == {
        "bn1.weight": 0.0,
        "bn1.bias": 0.0,
        "conv.weight": 0.5,
        "conv.bias": 0.0,
        "down.0.weight": 0.5,  # a batch norm that its name does not give away, as in the published code
        "down.0.bias": 0.0,
    }


def test_a_step_follows_the_textbook():
    weight = nn.Parameter(torch.tensor([[2.0]]))
    model = nn.Module()
    model.weight = weight
    optimizer = sgd(model, lr=0.1, momentum=0.5, nesterov=False, weight_decay=0.1, decay_norm=True)
    for _ in range(2):
        weight.grad = torch.tensor([[1.0]])
        optimizer.step()
    # v1 = 1 + .2 = 1.2, w = 1.88; v2 = .6 + 1.188 = 1.788, w = 1.7012
    assert weight.item() == pytest.approx(1.7012)


def test_a_step_of_adamw_follows_the_paper():
    """Algorithm 2 of Loshchilov and Hutter by hand, with a weight decay that no average sees."""
    weight = nn.Parameter(torch.tensor([[2.0]]))
    model = nn.Module()
    model.weight = weight
    optimizer = adamw(model, lr=0.1, weight_decay=0.5, decay_norm=True)
    value, mean, square = 2.0, 0.0, 0.0
    for step, gradient in enumerate((1.0, -3.0), start=1):
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        corrected = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)) ** 0.5 + 1e-8)
        value = value - 0.1 * 0.5 * value - 0.1 * corrected
        assert weight.item() == pytest.approx(value, rel=1e-6)


def test_the_encoder_of_a_classifier_is_all_but_its_final_layer():
    model = create("wrn-10-1", 3, width=4)
    optimizer = sgd(
        model, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0, decay_norm=True, encoder_scale=0.25
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    set_rate(optimizer, 0.5)
    optimizer.step()
    for name, parameter in model.named_parameters():
        rate = 0.5 if name.startswith("backbone.fc.") else 0.125
        torch.testing.assert_close(
            before[name] - parameter.detach(), torch.full_like(parameter, rate), msg=name
        )


def test_the_encoder_of_a_part_model_is_its_segmenters():
    of = {"part_classes": [0, 1, 2], "encoder": "timm/test_resnet"}
    model = create("parts/bounding-box", 3, image_size=64, parts=of)
    options = {"lr": 0.1, "weight_decay": 0.1, "decay_norm": True, "encoder_scale": 0.2}
    slow, usual = adamw(model, **options).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    inside = {names[id(parameter)] for parameter in slow["params"]}
    assert inside == {name for name in names.values() if name.startswith("backbone.segmenter.encoder.")}
    rest = {name.split(".")[1] + "." + name.split(".")[2] for name in names.values() if name not in inside}
    assert {"segmenter.decoder", "segmenter.to_parts"} < rest
    assert len(slow["params"]) + len(usual["params"]) == len(names)


def test_without_a_scale_of_its_own_the_groups_are_those_of_older_checkpoints():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decayed, spared = adamw(model, lr=0.1, weight_decay=0.5, decay_norm=False).param_groups
    assert [[p.ndim for p in group["params"]] for group in (decayed, spared)] == [[4], [1, 1, 1]]
