"""What ``fit`` hands to the parts that it calls: the right images, keys, maps, models and arithmetic."""

import json
import math
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from counterpart.contracts import Loss, Objective, Perturbed
from counterpart.data.image_sets import ImageSet
from counterpart.data.transforms import Augmentation
from counterpart.errors import NotFinite, UserError
from counterpart.models.inference import InferenceView
from counterpart.objectives import standard
from counterpart.rundir import RunDir
from counterpart.training import checkpoint, failures, loop, step, stored_maps
from counterpart.training.loop import fit
from counterpart.training.optimizers import adamw, sgd
from counterpart.training.step import LoopOptions, Phase, StepRadii
from counterpart.training.weight_average import averaged

CPU = torch.device("cpu")
SOURCE = str(Path(__file__).parents[2] / "src")


class Net(nn.Module):
    """Small, with a batch norm."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)
        )

    def forward(self, images):
        return self.body(images)


@pytest.fixture
def images():
    pixels = torch.randint(
        0, 256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    labels = torch.arange(24) % 2
    return ImageSet("noise", "train", ("a", "b"), labels, torch.arange(24) + 7, "f" * 12, (1, 8, 8), pixels)


@pytest.fixture
def train(images, tmp_path):
    """Run ``fit`` on a small network; returns (model, run folder)."""

    def run(
        phases,
        *,
        name="run",
        rate=lambda epoch: 0.1,
        validate=None,
        lr=0.1,
        momentum=0.0,
        fused=None,
        **changes,
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = Net()
        settings = {"batch_size": 8, "seed": 0, "device": CPU, "augmentation": None, **changes}
        done = fit(
            model,
            phases,
            images,
            run=RunDir(tmp_path / name),
            optimizer=sgd(
                model,
                lr=lr,
                momentum=momentum,
                nesterov=False,
                fused=fused,
                weight_decay=0.0,
                decay_norm=True,
            ),
            rate=rate,
            validate=validate or (lambda model, view: (0.5, 0.5)),
            options=LoopOptions(**settings),
            about={"config": "c"},
        )
        assert done or "deadline" in changes
        return model, RunDir(tmp_path / name)

    return run


def recording(seen):
    """The standard objective, and what it was given."""
    real = standard()

    def perturb(view, batch, keys):
        assert torch.equal(keys.index, batch.index)
        seen.append({"batch": batch, "keys": keys, "view": view})
        return Perturbed(batch.images)

    def loss(model, batch, perturbed):
        seen[-1]["autocast"] = torch.is_autocast_enabled("cpu")
        seen[-1]["training"] = model.training
        return real.loss(model, batch, perturbed)

    return Objective(perturb, loss)


def test_every_epoch_has_its_own_order_and_draws(train, images):
    seen = []
    train([Phase("p", 2, recording(seen))], seed=4)
    orders = [torch.cat([s["batch"].index for s in seen[part]]) for part in (slice(0, 3), slice(3, 6))]
    for order in orders:
        assert sorted(order.tolist()) == images.index.tolist()
    assert not torch.equal(*orders)
    first, second = seen[0]["keys"].uniform(0, (64,)), seen[3]["keys"].uniform(0, (64,))
    same = seen[0]["keys"].index[:, None] == seen[3]["keys"].index[None, :]
    for row, column in same.nonzero().tolist():
        assert not torch.equal(first[row], second[column])
    assert len({s["keys"].attack for s in seen}) == 2
    assert all(s["keys"].seed == 4 and s["training"] for s in seen)


def test_images_are_augmented_and_labels_follow(train, images):
    plain, moved = [], []
    train([Phase("p", 1, recording(plain))], name="run")
    train([Phase("p", 1, recording(moved))], name="moved", augmentation=Augmentation(padding=2, flip=True))
    changed = 0
    for before, after in zip(plain, moved, strict=True):
        assert torch.equal(before["batch"].index, after["batch"].index)
        assert torch.equal(after["batch"].labels, (after["batch"].index - 7) % 2)
        changed += (before["batch"].images != after["batch"].images).flatten(1).any(dim=1).sum()
    assert changed > 18


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("compile_it", [False, True])
def test_precision_and_compilation_reach_view_and_training(train, monkeypatch, precision, compile_it):
    made, seen, wholes = [], [], []

    class Watched(InferenceView):
        def __init__(self, model, *, precision="float32", compile=False, form="fast"):
            made.append((precision, compile))
            super().__init__(model, precision=precision, form=form)

    class Whole(loop.WholeStep):
        def __init__(self, *given):
            wholes.append(given)
            super().__init__(*given)

    monkeypatch.setattr(loop, "InferenceView", Watched)
    monkeypatch.setattr(loop, "WholeStep", Whole)
    train([Phase("p", 1, recording(seen))], precision=precision, compile=compile_it)
    # The second is for validation. Steps that are compiled as a whole need no compiled view.
    assert made == [(precision, False), (precision, False)]
    assert {s["autocast"] for s in seen if "autocast" in s} == {
        precision == "bf16"
    }  # the rest only lists draws
    assert bool(wholes) == compile_it


def test_a_view_is_compiled_by_itself_where_a_whole_step_cannot_be(train, monkeypatch):
    made = []

    class Watched(InferenceView):
        def __init__(self, model, *, precision="float32", compile=False, form="fast"):
            made.append(compile)
            super().__init__(model, precision=precision, form=form)

    monkeypatch.setattr(loop, "InferenceView", Watched)
    train([Phase("p", 1, standard())], compile=True, awp=0.01)
    assert made == [True, False]


def test_the_view_is_fresh_whenever_it_is_used(train):
    gaps = []

    def perturb(view, batch, keys):
        model = gaps_model[0]
        model.eval()
        with torch.no_grad():
            gaps.append(float((view(batch.images) - model(batch.images)).abs().max()))
        return Perturbed(batch.images)

    real, gaps_model = standard(), []

    def loss(model, batch, perturbed):
        return real.loss(model, batch, perturbed)

    original = loop.InferenceView

    def remember(model, **options):
        gaps_model.append(model)
        return original(model, **options)

    loop.InferenceView = remember
    try:
        train([Phase("p", 2, Objective(perturb, loss))], rate=lambda epoch: 0.5)
    finally:
        loop.InferenceView = original
    assert len(gaps) == 6
    assert max(gaps) < 1e-4


def test_averaged_weights_are_what_is_validated_and_kept_as_best(train):
    judged = []

    def validate(model, view):
        model.eval()
        probe = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            judged.append((model, float((view(probe) - model(probe)).abs().max())))
        return 0.5, 0.5

    model, run = train([Phase("p", 3, recording([]))], validate=validate, ema=0.9)
    assert all(one is not model for one, _ in judged)
    assert max(gap for _, gap in judged) < 1e-4  # the view of the averaged weights follows them
    last, _ = checkpoint.read(run.checkpoint("last"))
    averaged = {k.removeprefix("ema.module."): v for k, v in last.items() if k.startswith("ema.module.")}
    assert all(torch.equal(averaged[name], value) for name, value in judged[-1][0].state_dict().items())
    assert not torch.equal(averaged["body.0.weight"], last["model.body.0.weight"])
    state = last["model.body.4.weight"]
    assert torch.equal(state, model.state_dict()["body.4.weight"])


def test_best_is_chosen_by_robust_accuracy_and_starts_anew_with_each_phase(train):
    scores = iter([(0.9, 0.9), (0.9, 0.2), (0.4, 0.6), (0.8, 0.5)])
    phases = [Phase("burn-in", 1, recording([])), Phase("main", 3, recording([]))]
    _, run = train(phases, validate=lambda model, view: next(scores))
    assert checkpoint.read(run.checkpoint("best"))[1]["epoch"] == 2


def test_best_by_clean_accuracy_where_nothing_attacks(train):
    scores = iter([(0.9, 0.1), (0.8, 0.7), (0.85, 0.0)])
    _, run = train(
        [Phase("clean", 3, recording([]))], validate=lambda m, v: next(scores), best_by_robust=False
    )
    assert checkpoint.read(run.checkpoint("best"))[1]["epoch"] == 0


def test_clipping_bounds_the_step(train):
    torch.manual_seed(0)
    start = Net().state_dict()
    moved = {}
    for name, clip in (("run", None), ("clipped", 1e-3)):
        model, _ = train([Phase("p", 1, recording([]))], name=name, clip_norm=clip)
        gaps = [(p - start[n]).flatten() for n, p in model.named_parameters()]
        moved[name] = float(torch.cat(gaps).detach().norm())
    assert moved["clipped"] <= 3 * 0.1 * 1e-3 * 1.01
    assert moved["run"] > 10 * moved["clipped"]


def test_the_rate_of_each_step_is_the_schedules(train, monkeypatch):
    rates, asked = [], []
    real = torch.optim.SGD.step

    def watch(self, *arguments, **options):
        rates.append(self.param_groups[0]["lr"])
        return real(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", watch)

    def rate(epoch):
        asked.append(epoch)
        return 0.01 * (1 + epoch)

    train([Phase("p", 2, recording([]))], rate=rate)
    assert rates == pytest.approx([0.01 * (1 + s / 3) for s in range(6)])


def test_maps_are_drawn_again_by_absolute_epochs_of_their_phase(train, monkeypatch):
    drawn, seen, epoch_of = [], [], []

    def draw(view, images, phase, settings):
        drawn.append(len(epoch_of))
        return torch.full((31, 2, 2), float(len(drawn)), dtype=torch.float16)

    monkeypatch.setattr(loop, "draw_maps", draw)
    phases = [Phase("burn-in", 1, recording([])), Phase("part", 5, recording(seen), refresh_epochs=2)]
    train(phases, validate=lambda model, view: (epoch_of.append(1), (0.5, 0.5))[1])
    assert drawn == [1, 3, 5]
    values = [float(s["batch"].importance.max()) for s in seen]
    assert values == [1.0] * 6 + [2.0] * 6 + [3.0] * 3


def test_stored_maps_are_of_the_phases_kind_and_class_in_batches_of_a_step(train, monkeypatch):
    asked, sizes = [], []

    def fill(view, batches, length, map_class, kind):
        asked.append((length, map_class, kind))
        sizes.extend(map(len, batches))
        return torch.ones(length, 2, 2, dtype=torch.float16)

    monkeypatch.setattr(stored_maps.store, "fill", fill)
    train([Phase("part", 1, recording([]), 1, "margin", "layer-cam")])
    assert [one[1:] for one in asked] == [("margin", "layer-cam")]
    assert sizes == [8, 8, 8]  # a probe keeps its graph: larger ones would need more memory than training


TWO = """
import json, sys
import torch
from torch import nn
torch.set_num_threads(1)
from counterpart import distributed
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.importance.rules import constant
from counterpart.models.inference import InferenceView
from counterpart.models import create
from counterpart.objectives import adversarial, standard, trades, with_parts
from counterpart.contracts import PartOutput
from counterpart.training.step import Phase, LoopOptions, train_step
from counterpart.training.optimizers import adamw, sgd
from counterpart.losses.segmentation import segmentation
from functools import partial

class Parted(nn.Module):
    full_resolution = False

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 4, 2, stride=2), nn.Linear(64, 3)
        self.register_buffer("part_classes", torch.arange(3))

    def forward_parts(self, images):
        part_logits = self.conv(images)
        return PartOutput(self.classify_parts(part_logits), part_logits)

    def classify_parts(self, part_logits):
        return self.linear(part_logits.softmax(dim=1).flatten(1))

    def forward(self, images):
        return self.forward_parts(images).logits


distributed.start()
for kind in ("plain", "norm", "dropout", "awp", "joint", "parts", "segmenter", "fine-tuned"):
    torch.manual_seed(0)
    middle = {"norm": [nn.BatchNorm2d(4)], "joint": [nn.BatchNorm2d(4), nn.Dropout()], "dropout": [nn.Dropout(0.3)]}
    middle = middle.get(kind, [])
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    full = Linf(0.1)
    objective = adversarial(budget=full, rule=constant, steps=3)
    if kind == "joint":
        objective = trades(budget=full, rule=constant, steps=2, bn_batches="joint")
    shape, parts = (1, 8, 8), {}
    if kind == "parts":
        model, objective = Parted(), with_parts(objective, c_seg=0.7)
        parts = {"parts": torch.randint(0, 4, (9, 8, 8)), "has_parts": torch.arange(9) < 3}  # of one process alone
    if kind in ("segmenter", "fine-tuned"):
        of = {"part_classes": [0, 1, 2], "encoder": "timm/test_resnet"}
        model = create("parts/bounding-box", 3, image_size=64, parts=of).to(memory_format=torch.channels_last)
        weighed = partial(segmentation, background_weight=1.0 if kind == "segmenter" else 0.2)
        objective, shape = with_parts(standard(), c_seg=0.5, part_loss=weighed), (3, 64, 64)
        parts = {"parts": torch.randint(0, 4, (9, 64, 64)), "has_parts": torch.arange(9) < 6}
    whole = Batch(torch.rand(9, *shape), torch.arange(9) % 3, torch.arange(9), **parts)
    if kind in ("segmenter", "fine-tuned"):  # in float64, or rounding differs and grows through its batch norms
        torch.Tensor.float = torch.Tensor.double
        model, whole = model.double(), Batch(whole.images.double(), whole.labels, whole.index, **parts)
    view = InferenceView(model)
    optimizer = sgd(model, lr=0.5, momentum=0.9, nesterov=False, weight_decay=0.01, decay_norm=True)
    if kind == "fine-tuned":
        optimizer = adamw(model, lr=0.001, weight_decay=0.01, decay_norm=True, encoder_scale=0.2)
    settings = LoopOptions(9, 0, torch.device("cpu"), None, awp=0.05 if kind == "awp" else 0.0)
    for step in range(1 if kind == "joint" else 4):  # later the sign of a gradient near zero may differ
        part = whole.select(distributed.share(9))
        train_step(part, 9, 0, step, model, view, Phase("p", 1, objective), optimizer, settings)
        view.refresh()
    torch.save(model.state_dict(), f"{sys.argv[1]}-{kind}-{distributed.rank()}.pt")
distributed.stop()
"""


@pytest.mark.slow
def test_two_processes_make_the_step_of_one(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    starts = {
        "two": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        "one": [],
    }
    for name, how in starts.items():
        command = [sys.executable, *how, str(script), str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for kind in ("plain", "norm", "dropout", "awp", "joint", "parts", "segmenter", "fine-tuned"):
        first, second, alone = (
            torch.load(tmp_path / f"{name}.pt", weights_only=True)
            for name in (f"two-{kind}-0", f"two-{kind}-1", f"one-{kind}-0")
        )
        assert all(torch.equal(first[name], second[name]) for name in first), "the processes drifted apart"
        for name in alone:
            torch.testing.assert_close(first[name], alone[name], rtol=1e-4, atol=1e-5)


def test_dropout_draws_anew_in_every_step_and_the_same_in_every_run(train):
    def drops():
        seen = []

        def loss(model, batch, perturbed):
            seen.append(nn.functional.dropout(torch.ones(64), 0.5))
            return standard().loss(model, batch, perturbed)

        return seen, Objective(lambda view, batch, keys: Perturbed(batch.images), loss)

    runs = []
    for name in ("first", "second"):
        seen, objective = drops()
        train([Phase("p", 2, objective)], name=name)
        runs.append(torch.stack(seen))
    assert torch.equal(*runs)
    assert len({tuple(row.tolist()) for row in runs[0]}) == 6


@pytest.mark.parametrize(("every", "saves"), [(300.0, 2), (1e-9, 6)])
def test_checkpoints_within_an_epoch_come_as_often_as_asked(train, monkeypatch, every, saves):
    made, real = [], checkpoint.save

    def save(path, state, *rest):
        made.append((state.epoch, state.step))
        real(path, state, *rest)

    monkeypatch.setattr(checkpoint, "save", save)
    train([Phase("p", 2, recording([]))], checkpoint_every=every)
    assert len(made) == saves
    assert made[-1] == (2, 0)


def test_records_say_what_was_trained(train):
    def perturb(view, batch, keys):
        return Perturbed(
            batch.images, counts={"radius": torch.tensor(0.03 * len(batch)), "flat_maps": torch.tensor(2)}
        )

    def loss(model, batch, perturbed):
        total = model(perturbed.images).mean() * 0 + batch.index.float().mean()
        return Loss(total, {"accuracy": torch.tensor(0.25)})

    _, run = train([Phase("part", 1, Objective(perturb, loss))])
    [row] = [r.details for r in run.records()]
    assert row["loss"] == pytest.approx(7 + 23 / 2)
    assert row["accuracy"] == pytest.approx(0.25)
    assert row["mean_radius"] == pytest.approx(0.03)
    assert row["flat_maps"] == 6
    assert json.loads((run.path / "records.jsonl").read_text())["seed"] == 0


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_validation_searches_on_the_judged_model_in_the_training_precision(train, precision):
    gaps = []

    def validate(model, view):
        images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        model.eval()
        with torch.no_grad():
            gaps.append(float((view(images) - model(images)).abs().max()))
        return 0.5, 0.5

    train([Phase("p", 2, recording([]))], precision=precision, validate=validate)
    assert max(gaps) < (1e-5 if precision == "float32" else 0.1)
    assert min(gaps) > 0 or precision == "float32"


def test_float32_is_not_tf32_and_convolutions_repeat_themselves_while_training(train):
    seen = []

    def watch(*arguments):
        convolutions, products = torch.backends.cudnn.conv, torch.backends.cuda.matmul
        seen.append(
            (convolutions.fp32_precision, products.fp32_precision, torch.backends.cudnn.deterministic)
        )
        return (0.5, 0.5)

    def perturb(view, batch, keys):
        watch()
        return Perturbed(batch.images)

    train([Phase("p", 1, Objective(perturb, standard().loss))], validate=watch)
    assert seen == [("ieee", "ieee", True)] * 4
    assert not torch.backends.cudnn.deterministic


def broken_at(*steps):
    """Training on clean images whose loss is not a number in some steps, counted from 0; and the weights after each."""
    seen = []

    def loss(model, batch, perturbed):
        seen.append(model.body[-1].weight.detach().clone())
        made = standard().loss(model, batch, perturbed)
        return Loss(made.total * torch.nan, made.terms) if len(seen) - 1 in steps else made

    return Objective(standard().perturb, loss), seen


def test_steps_that_are_read_together_come_to_the_same_totals(train):
    seen = []
    for every in (1, 2, 50):
        objective, _ = broken_at()
        _, run = train([Phase("p", 2, objective)], name=f"run-{every}", read_every=every, fused=True)
        seen.append([[row.details[name] for name in ("loss", "accuracy")] for row in run.records()])
    assert len(seen[0]) == 2
    assert seen[0] == seen[1] == seen[2]


def test_the_first_step_that_is_not_finite_freezes_the_weights_and_is_reported_by_its_number(train, tmp_path):
    objective, weights = broken_at(1)
    with pytest.raises(UserError, match=r"not finite \(loss nan\) at epoch 1, step 2\."):
        train([Phase("p", 2, objective)], read_every=50, fused=True)
    assert len(weights) == 3  # the epoch's steps: nobody looked before its end
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2])
    assert not RunDir(tmp_path / "run").checkpoint("last").exists()


def not_finite(*arguments):
    raise NotFinite("the model returns logits that are not finite; it cannot be evaluated.")


def test_validation_that_meets_a_diverged_model_says_where_and_keeps_the_checkpoint(train, tmp_path):
    phases, run = [Phase("p", 3, recording([]))], RunDir(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"not finite at epoch 1, step 3\. No checkpoint had been written yet\."
    ):
        train(phases, validate=not_finite)
    assert not run.checkpoint("last").exists()
    answers = iter([lambda *_: (0.5, 0.5), not_finite])
    with pytest.raises(
        UserError, match=r"not finite at epoch 2, step 3\. .*last\.safetensors was written before"
    ):
        train(phases, validate=lambda *given: next(answers)(*given))
    assert checkpoint.read(run.checkpoint("last"))[1]["state"]["epoch"] == 1
    train(phases)
    assert [r.details["epoch"] for r in run.records()] == [0, 1, 2]


def test_weights_that_are_not_finite_never_replace_a_checkpoint(train, tmp_path):
    run, rates = RunDir(tmp_path / "run"), iter([0.1, 0.1, 0.1, 0.1, 0.1, math.inf])
    with pytest.raises(UserError, match="weights are not finite at epoch 2, step 2"):
        train([Phase("p", 2, recording([]))], rate=lambda epoch: next(rates), checkpoint_every=1e-9)
    tensors, about = checkpoint.read(run.checkpoint("last"))
    assert (about["state"]["epoch"], about["state"]["step"]) == (1, 1)
    assert all(t.isfinite().all() for t in tensors.values())


def test_other_errors_of_validation_are_not_taken_for_divergence(train):
    def broken(*arguments):
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        train([Phase("p", 1, recording([]))], validate=broken)


def test_nothing_of_the_failed_step_is_alive_while_memory_is_probed(train, monkeypatch):
    """A traceback keeps every tensor of its frames: then the size that fits would come out too small."""
    held, alive = [], []

    def greedy(batch, *rest):
        alive.append(sum(one() is not None for one in held))
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Perturbed(batch.images), Loss(rest[2].body[4].bias.sum() * 0, {})

    monkeypatch.setattr(failures, "one_pass", greedy)
    monkeypatch.setattr(step, "one_pass", greedy)
    with pytest.raises(UserError, match=r"--train\.batch-size 2 fits"):
        train([Phase("p", 1, recording([]))])
    assert alive == [0, 0, 0]


@pytest.mark.parametrize("signal_at", [1, 2])
def test_a_stop_during_validation_is_heeded_even_in_the_last_epoch(train, tmp_path, signal_at):
    """The run is finished then, but the next seed must not start."""
    epochs = []

    def validate(model, view):
        epochs.append(1)
        if len(epochs) == signal_at:
            signal.raise_signal(signal.SIGINT)
        return 0.5, 0.5

    with pytest.raises(KeyboardInterrupt):
        train([Phase("p", 2, recording([]))], validate=validate)
    run = RunDir(tmp_path / "run")
    assert checkpoint.read(run.checkpoint("last"))[1]["state"]["epoch"] == signal_at
    train([Phase("p", 2, recording([]))])
    assert [r.details["epoch"] for r in run.records()] == [0, 1]


def test_seconds_of_an_epoch_are_those_of_its_steps_over_all_starts(train, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def perturb(view, batch, keys):
        clock[0] += 1.0
        return Perturbed(batch.images)

    phases = [Phase("p", 2, Objective(perturb, standard().loss))]
    for _ in range(8):
        _, run = train(phases, deadline=clock[0] + 0.5)  # one step a start
        clock[0] += 1000.0
    assert [r.seconds for r in run.records()] == [3.0, 3.0]
    assert [r.details["images_per_second"] for r in run.records()] == [8.0, 8.0]


def test_gradients_alone_are_summed(monkeypatch):
    """Buffers are the same everywhere, and would come back rounded."""
    model = nn.Sequential(Net(), nn.BatchNorm2d(2))
    summed = []
    monkeypatch.setattr(step.distributed, "world_size", lambda: 3)
    monkeypatch.setattr(step.distributed, "sum_", lambda tensors: summed.extend(tensors))
    step._sum_gradients(model)
    assert [id(one) for one in summed] == [id(p.grad) for p in model.parameters()]


def test_momentum_keeps_the_memory_format_of_its_weight_after_a_resume(train, tmp_path):
    class Wide(Net):
        def __init__(self):
            super().__init__()
            self.body[0] = nn.Conv2d(4, 4, 3)

    model = Wide().to(memory_format=torch.channels_last)
    optimizer = sgd(model, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, decay_norm=True)
    model(torch.rand(4, 4, 8, 8)).sum().backward()
    optimizer.step()
    before = [slots["momentum_buffer"] for slots in optimizer.state.values()]
    checkpoint.save(tmp_path / "c.safetensors", checkpoint.State(), {}, model, optimizer, None, None)
    again = sgd(model, lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0, decay_norm=True)
    checkpoint.restore(tmp_path, checkpoint.read(tmp_path / "c.safetensors"), model, again, None)
    after = [slots["momentum_buffer"] for slots in again.state.values()]
    for one, other, weight in zip(before, after, model.parameters(), strict=True):
        assert torch.equal(one, other)
        assert other.stride() == weight.stride() == one.stride()


def test_adamw_goes_on_from_a_file_as_if_nothing_had_been(tmp_path):
    """One with a weight of a single number, whose state has the shape of a count of steps."""
    torch.manual_seed(0)
    model = Net()
    model.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = adamw(model, lr=0.1, weight_decay=0.1, decay_norm=True)

    def step(model, optimizer, seed):
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(100 * seed + number)
            parameter.grad = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
        optimizer.step()

    step(model, optimizer, 1)
    checkpoint.save(tmp_path / "c.safetensors", checkpoint.State(), {}, model, optimizer, None, None)
    other = Net()
    other.scale = nn.Parameter(torch.zeros((), dtype=torch.float64))
    again = adamw(other, lr=0.1, weight_decay=0.1, decay_norm=True)
    checkpoint.restore(tmp_path, checkpoint.read(tmp_path / "c.safetensors"), other, again, None)
    assert {slots["step"].dtype for slots in again.state.values()} == {torch.float32}
    assert {float(slots["step"]) for slots in again.state.values()} == {1.0}
    step(model, optimizer, 2)
    step(other, again, 2)
    for before, after in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(before, after)


def test_whole_numbers_are_taken_over_into_an_average():
    model = Net()
    model.register_buffer("positions", torch.arange(100))
    average = averaged(model, 0.9)
    for _ in range(3):
        average.update_parameters(model)
    assert torch.equal(average.module.positions, torch.arange(100))


def test_batch_norm_statistics_are_averaged_like_the_weights(train):
    seen = []

    def loss(model, batch, perturbed):
        seen.append({name: getattr(model.body[1], name).clone() for name in ("running_mean", "running_var")})
        return standard().loss(model, batch, perturbed)

    model, run = train(
        [Phase("p", 1, Objective(lambda view, batch, keys: Perturbed(batch.images), loss))], ema=0.5
    )
    tensors, _ = checkpoint.read(run.checkpoint("last"))
    for name in ("running_mean", "running_var"):
        first, second, third = seen[1][name], seen[2][name], getattr(model.body[1], name)
        torch.testing.assert_close(
            tensors[f"ema.module.body.1.{name}"], 0.25 * first + 0.25 * second + 0.5 * third
        )


def test_overfitting_to_training_s_own_attack_is_said_when_it_happens(train):
    robust = iter((0.4, 0.5, 0.0))

    def attacked(accuracy):
        def loss(model, batch, perturbed):
            made = standard().loss(model, batch, perturbed)
            return Loss(made.total, {"accuracy": torch.tensor(accuracy)})

        return Objective(lambda view, batch, keys: Perturbed(batch.images), loss)

    phase = Phase(
        "p", 3, attacked(0.4), growing=StepRadii, at_radii=lambda radii: attacked(0.3 + radii.eps / 10)
    )  # the moment stands for a radius
    _, run = train([phase], validate=lambda model, view: (0.9, next(robust)))
    lines = (run.path / "progress.log").read_text().splitlines()
    said = [line for line in lines if line.startswith("Catastrophic")]
    assert len(said) == 1
    assert "from 50.00% after epoch 2 to 0.00% after epoch 3" in said[0]


def test_the_first_step_of_each_epoch_checks_what_it_is_given(train, monkeypatch):
    checked = []

    def take(*given):
        checked.append(given[-1].checked)
        return step.train_step(*given)

    monkeypatch.setattr(loop, "train_step", take)
    train([Phase("p", 2, standard())])
    assert checked == [False, True, True] * 2


def test_each_phase_is_compiled_for_itself(train, monkeypatch):
    compiled = []

    class Whole(loop.WholeStep):
        def __init__(self, phase, *given):
            compiled.append(phase.name)
            super().__init__(phase, *given)

        def takes(self, batch):
            return False

    monkeypatch.setattr(loop, "WholeStep", Whole)
    train([Phase("first", 2, standard()), Phase("second", 1, standard())], compile=True)
    assert compiled == ["first", "second"]
