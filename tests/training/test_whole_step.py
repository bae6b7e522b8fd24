"""The compiled training step comes to the weights of the eager one, with new noise in every step, or says why not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.exc import Unsupported

from counterpart import build, distributed
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.config import resolve
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import n_fgsm, standard
from counterpart.seeding import Keys, ListedKeys, TensorKeys, seeded, seeds_of
from counterpart.training.step import LoopOptions, Phase, Running, train_step
from counterpart.training.whole_step import WholeStep, why_not

SCRIPT = Path(__file__).parent / "compiled_and_eager.py"
SOURCE = str(Path(__file__).parents[2] / "src")
OPTIONS = LoopOptions(8, 0, torch.device("cpu"), None)
PHASE = Phase("adversarial", 1, standard())


PART = {"train": {"method": "part"}, "mask": {"eps_low": 0.05, "burn_in": 0}}
GROWING_PART = {**PART, "attack": {"eps": 0.1, "steps": 1, "eps_warmup": 1.4}}


@pytest.mark.parametrize(
    ("backend", "layer"),
    [
        pytest.param("aot_eager", GROWING_PART, id="aot_eager-part, growing"),
        pytest.param(
            "aot_eager", {"train": {"method": "trades"}}, marks=pytest.mark.slow, id="aot_eager-trades"
        ),
        pytest.param("inductor", PART, marks=pytest.mark.slow, id="inductor-part"),
        pytest.param("inductor", GROWING_PART, marks=pytest.mark.slow, id="inductor-part, growing"),
    ],
)
def test_compiled_and_eager_runs_end_in_the_same_weights(tmp_path, backend, layer):
    """24 images of 30 in batches of 12 are compiled in each epoch; the last 6 run as they are."""
    words = [sys.executable, str(SCRIPT), str(tmp_path), backend, json.dumps(layer)]
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    came_to = json.loads(done.stdout.splitlines()[-1])
    assert came_to["said"] == []
    assert came_to["calls"] == [12] * 4
    assert came_to["largest"] < 1e-5
    eager, compiled = came_to["losses"]
    assert compiled == pytest.approx(eager, abs=1e-5)


@pytest.mark.parametrize("name", ["train/0", "train/7"])
def test_keys_of_a_tensor_draw_what_keys_of_names_draw(name):
    index = torch.tensor([3, 1, 4])

    def draw(keys):
        inner = keys.fold("noise", 2)[1:]
        return [
            keys.uniform(0, (2, 2)),
            keys.uniform(0, (5,), stream=1),
            inner.normal(3, (4,)),
            inner.integers(1, 9),
        ]

    listed = ListedKeys(5, "train/3", index, "train/3")
    draw(listed)
    assert len(listed.draws) == 5
    places = {draw: place for place, draw in enumerate(listed.draws)}
    drawn = draw(TensorKeys(5, "", index, places, seeds_of(5, name, listed.draws)))
    for ours, expected in zip(drawn, draw(Keys(5, name, index)), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ("options", "form", "reason"),
    [
        ({}, "fast", None),
        ({"awp": 0.01}, "fast", "weight perturbation"),
        ({}, "original", "the form original"),
    ],
)
def test_what_is_not_compiled_has_a_reason(options, form, reason):
    said = why_not(replace(OPTIONS, **options), form)
    assert said is None if reason is None else reason in said


def test_several_processes_are_not_compiled(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    assert "several processes" in why_not(OPTIONS, "fast")


def test_a_compiler_that_fails_is_said_and_the_step_runs_as_it_is(monkeypatch, caplog):
    def fails(function, **options):
        def graph(*arguments):
            raise Unsupported("no such operation")

        return graph

    monkeypatch.setattr(torch, "compile", fails)
    model = create("wrn-10-1", 3, width=2)
    view = InferenceView(model, form="fast")
    whole = WholeStep(PHASE, model, view, OPTIONS)
    batch = Batch(torch.rand(8, 3, 8, 8), torch.arange(8) % 3, torch.arange(8))
    optimizer, before = (
        torch.optim.SGD(model.parameters(), lr=0.1),
        nn.utils.parameters_to_vector(model.parameters()),
    )
    measured = train_step(batch, 8, 0, 0, model, view, PHASE, optimizer, OPTIONS, Running(whole=whole))
    assert measured["images"] == 8
    assert not torch.equal(before, nn.utils.parameters_to_vector(model.parameters()))
    assert "not compiled as a whole: Unsupported: no such operation" in caplog.text
    assert not whole.takes(batch)


class Dropping(nn.Module):
    """Small, with a convolution whose weights lie channels last, a batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)
        ).to(memory_format=torch.channels_last)

    def forward(self, images):
        return self.body(images)


def stepped(options, compiled, *, epoch=2, step=1):
    """What a step measured on 8 images, and the model with its gradients."""
    with seeded(0):
        model = Dropping()
        batch = Batch(torch.rand(8, 3, 8, 8), torch.arange(8) % 3, torch.arange(8))
    view = InferenceView(model, precision=options.precision, form="fast")
    phase = replace(PHASE, objective=n_fgsm(budget=Linf(0.1), rule=rules.constant))
    running = Running(whole=WholeStep(phase, model, view, options) if compiled else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    measured = train_step(batch, 8, epoch, step, model, view, phase, optimizer, options, running)
    assert not compiled or running.whole.takes(batch)
    return measured, model


CHANGING = {  # settings under which a radius changes, and the moments at which it does
    "grows": ({"attack": {"eps_warmup": 1, "step_size": 0.04}}, (0.0, 0.3, 0.7, 1.0)),
    "grows, PART": (
        {"attack": {"eps_warmup": 1}, "train": {"method": "part"}, "mask": {"eps_low": 0.05}}, (0.0, 0.3, 0.7, 1.0),
    ),
    "grows, multiplied": (
        {
            "attack": {"eps_warmup": 1}, "train": {"method": "part"},
            "mask": {"eps_low": 0.05, "projection": "multiply"},
        },
        (0.0, 0.3, 0.7, 1.0),
    ),
    "grows, N-FGSM": ({"attack": {"generation": "n-fgsm", "eps_warmup": 1}}, (0.0, 0.3, 0.7, 1.0)),
    "auto": ({"train": {"method": "part"}, "mask": {"eps_low": "auto"}}, (0, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGING)
def test_a_graph_is_given_radii_that_change(monkeypatch, kind):
    """One graph serves a phase whose radius changes, and its steps are those of numbers, bit for bit."""
    given = []

    def plain(passes, **options):
        return lambda seeds, radii, *fields: given.append(radii) or passes(seeds, radii, *fields)

    monkeypatch.setattr(torch, "compile", plain)
    layer, moments = CHANGING[kind]
    config = resolve({"attack": {"eps": 0.1}, "mask": {"burn_in": 0} if "mask" in layer else {}}, layer)
    phase = build.build_phases(config, 100)[-1]
    batch = Batch(torch.rand(8, 3, 8, 8), torch.arange(8) % 3, torch.arange(8))
    measured, weights = [], []
    for compiled in (False, True):
        with seeded(0):
            model = create("wrn-10-1", 3, width=2)
        view = InferenceView(model, form="fast")
        running = Running(whole=WholeStep(phase, model, view, OPTIONS) if compiled else None)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for moment in moments:
            now = phase.at(moment) if phase.adapt is None else phase.adapt([(0.9, 0.5, 0.5)] * moment)
            measured.append(train_step(batch, 8, 0, 0, model, view, now, optimizer, OPTIONS, running))
            view.refresh()
        weights.append(nn.utils.parameters_to_vector(model.parameters()))
    eager, whole = measured[: len(moments)], measured[len(moments) :]
    assert whole == eager
    assert torch.equal(*weights)
    assert len({step["radius"] for step in whole}) == len(moments)  # it did change
    assert len(given) == len(moments)
    assert all(radii.dtype == torch.float64 for radii in given)


@pytest.mark.slow
def test_compiled_the_random_start_and_each_projection_are_one_kernel():
    """What is 61 and 28 launches as it is, with the same bits."""
    script = """
import torch
from torch._inductor import metrics
from counterpart.budget import Linf
from counterpart.budget.arithmetic import without_checks
from counterpart.seeding import Keys, ListedKeys, TensorKeys, seeds_of

clean, gradient, radii = torch.rand(4, 3, 8, 8), torch.randn(4, 3, 8, 8), 0.1 * torch.rand(4, 1, 8, 8)
index, budget = torch.arange(4), Linf(radii)
listed = ListedKeys(0, "start", index, "start")
budget.sample(clean, listed)
places = {draw: place for place, draw in enumerate(listed.draws)}

def advance(radii, images, gradient, clean):
    return without_checks(Linf, eps=radii).advance(images, gradient, 0.01, clean)

def sample(radii, clean, seeds, index):
    return without_checks(Linf, eps=radii).sample(clean, TensorKeys(0, "", index, places, seeds))

start = budget.sample(clean, Keys(0, "start", index))
for function, given, expected in (
    (sample, (radii, clean, seeds_of(0, "start", listed.draws), index), start),
    (advance, (radii, start, gradient, clean), budget.advance(start, gradient, 0.01, clean)),
):
    metrics.reset()
    assert torch.equal(torch.compile(function, fullgraph=True)(*given), expected), function
    assert metrics.generated_kernel_count == 1, (function, metrics.generated_kernel_count)
"""
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_is_compiled_are_the_passes_of_the_step(monkeypatch, precision):
    """With all that a step draws and counts, which stands here for itself without a compiler."""

    def plain(passes, **options):
        def graph(*given):
            *others, gradients = passes(*given)
            return *others, [
                gradient.contiguous() for gradient in gradients
            ]  # as a compiler may lay them out

        return graph

    monkeypatch.setattr(torch, "compile", plain)
    options = replace(OPTIONS, precision=precision)
    for step in (1, 2):
        (expected, eager), (measured, compiled) = (stepped(options, way, step=step) for way in (False, True))
        assert measured == expected
        assert {"accuracy", "radius"} < measured.keys()
        for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
            assert other.grad.stride() == other.stride()


@pytest.mark.parametrize("error", [RuntimeError("of the user's code"), Unsupported("CUDA out of memory")])
def test_other_errors_and_lack_of_memory_are_no_reason(monkeypatch, error):
    def fails(*given):
        raise error

    monkeypatch.setattr(torch, "compile", lambda passes, **options: fails)
    with pytest.raises(RuntimeError, match=str(error)):
        stepped(OPTIONS, compiled=True)
