"""How often the host may wait for the device: budgets, without which a GPU stands still between two launches."""

import pytest
import torch

from counterpart import build
from counterpart.attacks.auto_pgd import apgd
from counterpart.attacks.fast_adaptive_boundary import fab
from counterpart.attacks.projected_gradient import pgd
from counterpart.attacks.square_search import square
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.catalogue import METHODS
from counterpart.checks import after_the_door
from counterpart.config import resolve
from counterpart.data.transforms import Augmentation
from counterpart.evaluation.batch_results import BatchResult, kept_images, read_columns, unit_of
from counterpart.evaluation.ledger import Ledger
from counterpart.evaluation.unchanged import remember
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.seeding import Keys, seeded
from counterpart.training import checkpoint
from counterpart.training.meter import Meter
from counterpart.training.step import LoopOptions, Running, train_step
from counterpart.training.whole_step import WholeStep

CUDA = torch.device("cuda", 0)
COUNT = 6


@pytest.fixture
def network(device):
    with seeded(0):
        return create("wrn-10-1", 4, width=2).eval().to(CUDA)


@pytest.fixture
def batch(device, network, generator):
    images = torch.rand(COUNT, 3, 8, 8, generator=generator).to(CUDA)
    with torch.no_grad():
        labels = network(images).argmax(dim=1)
    return Batch(images, labels, torch.arange(COUNT).to(CUDA))


def waits_of_a_step(device, attack, network, batch, count, budget, **options):
    """What one more step costs, of images that stand."""
    view, counted = InferenceView(network, form="fast"), []
    keys = Keys(0, "waits", batch.index)
    for steps in (4, 8):
        with device.counting() as counts:
            attack(view, batch.images, batch.labels, budget=budget, keys=keys, **{count: steps}, **options)
        counted.append(counts)
    extra = counted[1].waits - counted[0].waits
    return extra.total() / 4, counted[1].describe()


TINY = Linf(1e-6)  # so small that every image stands and no step is left out


@pytest.mark.parametrize(
    "budget", [TINY, Linf(torch.full((COUNT, 1, 8, 8), 1e-6))], ids=["number", "per pixel"]
)
@pytest.mark.parametrize(
    ("attack", "count", "most", "options"),
    [
        (pgd, "steps", 2, {}),
        (apgd, "steps", 2, {}),
        (fab, "steps", 4, {}),
        (fab, "steps", 4, {"target": 1}),
        (square, "queries", 1, {}),
    ],
    ids=["PGD", "APGD", "FAB", "FAB-T", "Square"],
)
def test_a_judged_step(device, network, batch, attack, count, most, options, budget):
    if isinstance(budget.eps, torch.Tensor):
        budget = Linf(budget.eps.to(CUDA))
    waits, described = waits_of_a_step(device, attack, network, batch, count, budget, **options)
    assert 0 < waits <= most, described


def training_step(network, batch, method, running=None):
    masked = METHODS[method].facts.masked
    mask = {"eps_low": 0.02, "burn_in": 0} if masked else {}
    config = resolve({"train": {"method": method}, "mask": mask, "attack": {"steps": 3}, "device": "cuda"})
    phase = build.build_phases(config)[-1]
    options = LoopOptions(batch_size=COUNT, seed=0, device=CUDA, augmentation=None)
    optimizer = build.build_optimizer(config, network)
    view = InferenceView(network, form="fast")

    def step(number):
        measured = train_step(batch, COUNT, 0, number, network, view, phase, optimizer, options, running)
        view.refresh()
        return measured

    return step


@pytest.mark.parametrize("method", METHODS)
def test_a_training_step(device, network, batch, method):
    step = training_step(network, batch, method)
    step(0)  # the first pass looks at the model's head
    with device.counting() as counts:
        measured = step(1)
    assert counts.waits.total() <= 3, counts.describe()
    assert measured["images"] == COUNT


def test_a_step_of_a_running_training_does_not_wait_until_its_meter_is_read(device, network, batch):
    running = Running(Meter(every=3))
    step = training_step(network, batch, "part", running)
    step(0)
    with device.counting() as counts:
        assert step(1) == {}
    assert counts.waits.total() == 0, counts.describe()
    with device.counting() as counts:
        measured = step(2)
    assert counts.waits.total() == 1, counts.describe()
    assert measured["images"] == 3 * COUNT


@pytest.mark.parametrize("warmup", [0, 2])
def test_the_passes_that_are_compiled_do_not_wait(device, network, batch, warmup, monkeypatch):
    """Nor does anything lie elsewhere: neither seeds nor a radius that grows. No compiler stands between here."""
    monkeypatch.setattr(
        torch, "compile", lambda passes, **options: after_the_door()(passes)
    )  # which checks nothing
    config = resolve(
        {
            "train": {"method": "part", "compile": True}, "mask": {"eps_low": 0.02, "burn_in": 0},
            "attack": {"steps": 3, "eps_warmup": warmup}, "device": "cuda",
        }
    )  # fmt: skip
    phase = build.build_phases(config)[-1]
    options = LoopOptions(
        batch_size=COUNT, seed=0, device=CUDA, augmentation=None, compile=True, read_every=3
    )
    view = InferenceView(network, form="fast")
    running = Running(Meter(every=3), WholeStep(phase, network, view, options))
    optimizer = build.build_optimizer(config, network)

    def step(number):
        now = phase.at(number / 2)
        measured = train_step(batch, COUNT, 0, number, network, view, now, optimizer, options, running)
        view.refresh()
        return measured

    step(0)  # which lists the draws
    with device.counting() as counts:
        assert step(1) == {}
    assert counts.waits.total() == 0, counts.describe()
    assert running.whole.reason is None
    assert step(2)["images"] == 3 * COUNT


def test_that_gradients_are_finite_takes_a_few_launches(device, network):
    """However many tensors there are. On CUDA the norms are one launch, or a few where there are very many."""
    gradients = [torch.rand_like(parameter) for parameter in network.parameters()]
    assert len(gradients) > 20
    with device.counting() as counts:
        healthy = checkpoint.finite(gradients)
    assert counts.launches.total() <= 8, counts.launches
    assert counts.waits.total() == 0
    gradients[7].view(-1)[0] = torch.nan
    assert (healthy.item(), checkpoint.finite(gradients).item()) == (True, False)


def test_augmentation(device, batch):
    with device.counting() as counts:
        moved = Augmentation(padding=2)(batch, Keys(0, "augment", batch.index))
    assert counts.waits.total() == 0, counts.describe()
    assert counts.launches.total() > 10
    assert moved.images.is_cuda


def test_a_committed_unit(device, network, batch, tmp_path):
    """What the unit of three batches costs, beside the attacks that made their results."""
    results = []
    for first in range(0, COUNT, 2):
        part, positions = batch.select(slice(first, first + 2)), torch.arange(first, first + 2)
        fooled = part.index == first + 1
        results.append(BatchResult(positions, part.labels, fooled, part.index, part.index, part.images))
    is_unchanged, ledger = remember(network), Ledger(tmp_path, 1)
    with device.counting() as counts:
        columns, unchanged = read_columns(results, is_unchanged())
        unit = unit_of(results, columns, 1.0)
        ledger.commit("PGD", 0, unit, kept_images(results, unit))
    assert counts.waits.total() <= 2, counts.describe()
    assert unchanged
    assert ledger.read("PGD", 0) == unit
    assert unit.answers == batch.labels.tolist()
    kept, positions = ledger.images("PGD", 0)
    assert positions == [1, 3, 5]
    assert torch.equal(kept, batch.images.cpu()[positions])
