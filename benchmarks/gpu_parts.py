"""The measurements of ``gpu.py``. Each takes the command line, and returns its records, or None if it is unfinished."""

import argparse
import runpy
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from cifar_from_jpeg import unpack
from timing import problem, seconds

import counterpart
from counterpart import devices
from counterpart.api.training import TrainedRun
from counterpart.attacks.projected_gradient import pgd
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.errors import UserError
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import adversarial
from counterpart.records import Record
from counterpart.seeding import Keys
from counterpart.training.step import LoopOptions, Phase, train_step

HERE = Path(__file__).resolve().parent
TRAINING_MINUTES = 7.5  # the rest of a slot of nine is for the start and the evaluation
PRODUCT_SIZE = 8192  # rows and columns of the matrices that are multiplied
PARITY_ATTACKS = ["pgd", "apgd", "fab", {"attack": "square", "queries": 200}]
MEMORY_SIZES = (128, 512, 2048)  # batches
SAME_ENOUGH = 0.02  # the share of images that two kinds of hardware may judge otherwise
CLEAN_GOALS, ROBUST_GOALS = (0.6, 0.7, 0.75, 0.8), (0.3, 0.4, 0.45, 0.5)
Part = Callable[[argparse.Namespace], list[Record] | None]


def facts(given: argparse.Namespace) -> list[Record]:
    """The device, the versions, and what its arithmetic and its memory really sustain."""
    device = devices.resolve(given.device)
    size = PRODUCT_SIZE
    about: dict[str, Any] = {
        "torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        "python": sys.version.split()[0], "bf16": devices.has_bf16(device), "size": size,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(size, size, generator=generator).to(device)
    half = matrix.bfloat16()
    moved = 2 * matrix.nbytes / _mean_seconds(matrix.clone, device)
    with devices.exact_float32():
        exact = _mean_seconds(lambda: matrix @ matrix, device)
    short = _mean_seconds(lambda: half @ half, device)
    flops = 2 * size**3
    return [
        Record("timing", "gpu/bf16 product", flops / short / 1e12, 10, details={"unit": "TFLOP/s", **about}),
        Record(
            "timing", "gpu/float32 product", flops / exact / 1e12, 10, details={"unit": "TFLOP/s", **about}
        ),
        Record("timing", "gpu/copy", moved / 1e12, 10, details={"unit": "TB/s", **about}),
    ]


def parity(given: argparse.Namespace) -> list[Record]:
    """The same model on the CPU and on the device: its logits, PGD, and each image's row of an evaluation."""
    run = counterpart.train(
        "digits/at",
        folder=given.runs / "parity",
        changes={"device": "cpu", "train.epochs": min(15, given.epochs)},
    )
    logits, moved, robust = _answers(run, "cpu")
    logits_there, moved_there, robust_there = _answers(run, given.device)
    pixels = float((moved != moved_there).float().mean())
    apart = sum(a != b for a, b in zip(robust, robust_there, strict=True)) / len(robust)
    largest = float((logits - logits_there).abs().max())
    of = {"of": "digits/at; judged by PGD, APGD, FAB and 200 queries of Square"}
    return [
        Record("metric", "gpu/largest difference of a logit from the CPU", largest, len(logits), details=of),
        Record("metric", "gpu/pixels that PGD-10 leaves elsewhere", pixels, moved.numel(), details=of),
        Record("metric", "gpu/images judged otherwise than on the CPU", apart, len(robust),
               details={**of, "target": f"<= {SAME_ENOUGH}"}),
    ]  # fmt: skip


def _answers(run: TrainedRun, device: str) -> tuple[torch.Tensor, torch.Tensor, list[bool]]:
    """A run's logits on its first test images, those images after PGD-10, and which of 200 stand after attacks."""
    judged = run.evaluate(attacks=PARITY_ATTACKS, n=200, device=device)
    robust = [row.label == row.answer for row in judged.rows]
    model = run.model.to(device)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(64, 1, 8, 8, generator=generator).to(device)
    labels = torch.arange(64, device=device) % 10
    with devices.exact_float32():
        logits = model(images).detach().cpu()
        keys = Keys(0, "parity", torch.arange(64, device=device))
        attacked = pgd(model, images, labels, budget=Linf(0.1), keys=keys, steps=10, last_iterate=True)
    return logits, attacked.images.cpu(), robust


def steps(given: argparse.Namespace, *, size: int, compiled: bool) -> list[Record]:
    """Training steps of AT, PART and TRADES, ours beside the published way."""
    words = [
        "--device",
        given.device,
        "--width",
        str(given.width),
        "--batch-size",
        str(size),
        "--methods",
        "at,trades",
    ]
    call("training_step.py", [*words, *(["--compile"] if compiled else [])])
    return [_floor(given, size)]


def _floor(given: argparse.Namespace, size: int) -> Record:
    """The arithmetic of a step of AT with PGD-10: 10 passes to the image and one to all weights, of this model."""
    from torch.utils.flop_counter import FlopCounterMode

    model = create("resnet18", 10, width=given.width)
    with torch.device("meta"):
        image = torch.rand(1, 3, 32, 32)
    model.to("meta")
    with FlopCounterMode(display=False) as counter:
        model(image)
    forward = counter.get_total_flops()
    total = forward * (10 * 2 + 3) * size
    details = {"unit": "GFLOP", "batch_size": size, "forward of an image": forward / 1e9}
    return Record("metric", "gpu/arithmetic of a step of AT", total / 1e9, 1, details=details)


def training(given: argparse.Namespace, *, method: str) -> list[Record] | None:
    """CIFAR-10 at full size: seconds to each validation accuracy, and what the test images say."""
    run = trained(given, method)
    if not run.finished:
        return None
    epochs = [record for record in run.records if record.kind == "epoch"]
    rows, passed = [], 0.0
    goals = {"validation_clean": [*CLEAN_GOALS], "validation_robust": [*ROBUST_GOALS]}
    for epoch in epochs:
        passed += epoch.seconds or 0.0
        for name, ahead in goals.items():
            while ahead and epoch.details[name] >= ahead[0]:
                reached = {"unit": "s", "epoch": epoch.details["epoch"] + 1}
                rows.append(
                    Record("timing", f"gpu/{method} to {name} {ahead.pop(0):.0%}", passed, 1, details=reached)
                )
    memory = max(epoch.details["peak_memory"] for epoch in epochs) / 2**20
    rows.append(
        Record(
            "timing",
            f"gpu/{method}, all epochs",
            passed,
            len(epochs),
            details={"unit": "s", "target": "<= 480"},
        )
    )
    rows.append(Record("metric", f"gpu/{method}, peak memory", memory, len(epochs), details={"unit": "MB"}))
    judged = run.evaluate(attacks="pgd", device=given.device)
    for accuracy in judged.values():
        interval = (accuracy.low, accuracy.high)
        rows.append(Record("metric", f"gpu/{method}, {accuracy.name}", accuracy.value, accuracy.n, interval))
    return rows


def trained(given: argparse.Namespace, method: str) -> TrainedRun:
    """The training of a method on CIFAR-10, which goes on from where the last slot ended it."""
    changes = {
        "device": given.device, "train.epochs": given.epochs, "model.width": given.width,
        "train.compile": not given.eager, "train.stop_after": f"{TRAINING_MINUTES}m",
    }  # fmt: skip
    return counterpart.train(
        f"cifar10/{method}", root=cifar(given), folder=given.runs / method, changes=changes
    )


def cifar(given: argparse.Namespace) -> Path:
    """The folder of CIFAR-10, unpacked once where it came as JPEG files."""
    if given.data is None:
        raise UserError("--data is missing: the folder of CIFAR-10, or an NPZ of its images as JPEG files.")
    return unpack(given.data, given.runs / "data") if given.data.suffix == ".npz" else given.data


def auto_attack(given: argparse.Namespace) -> list[Record] | None:
    """AutoAttack on the trained network: ours, and the published package where it is installed."""
    run = trained(given, "at")
    if not run.finished:
        return None
    words = [
        str(run.path),
        "--data.root",
        str(cifar(given)),
        "--images",
        str(given.images),
        "--device",
        given.device,
    ]
    if find_spec("pyautoattack") is None:
        words.append("--skip-official")
    call("autoattack.py", [*words, "--batch-size", "512"])
    return []


def part_model(given: argparse.Namespace) -> list[Record]:
    """Steps of the Downsampled part model at 224 pixels, ours beside the published way."""
    call("part_step.py", ["--device", given.device, "--batch-size", "64", "--compile"])
    return []


def memory(given: argparse.Namespace) -> list[Record]:
    """The most memory that a step of AT takes, by batch size and arithmetic."""
    device = devices.resolve(given.device)
    rows = []
    for size in MEMORY_SIZES:
        for precision in ("float32", "bf16"):
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            _one_step(device, given.width, size, precision)
            most = devices.peak_memory(device) / 2**20
            details = {"unit": "MB", "batch_size": size, "precision": precision}
            rows.append(Record("metric", "gpu/memory of a step of AT", most, 1, details=details))
    return rows


def _one_step(device: torch.device, width: int, size: int, precision: str) -> None:
    images, labels = problem(size, device)
    batch = Batch(images, labels, torch.arange(size, device=device))
    model = create("resnet18", 10, width=width).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = InferenceView(model, precision=precision)
    objective = adversarial(budget=Linf(8 / 255), rule=rules.constant, steps=10)
    options = LoopOptions(size, 0, device, None, precision=precision)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    train_step(batch, size, 0, 0, model, view, Phase("at", 1, objective), optimizer, options)


def call(script: str, words: Sequence[str]) -> None:
    """Run another benchmark of this folder in this process, as its own command line would."""
    with patch.object(sys, "argv", [str(HERE / script), *words]):
        runpy.run_path(str(HERE / script), run_name="__main__")


def _mean_seconds(work: Callable[[], object], device: torch.device, times: int = 10) -> float:
    """The seconds of a call, the mean of several in a row after three that warm up."""
    for _ in range(3):
        work()
    return seconds(lambda: [work() for _ in range(times)], device) / times


PARTS: dict[str, Part] = {
    "facts": facts,
    "parity": parity,
    "train-at": partial(training, method="at"),
    "train-part": partial(training, method="part"),
    "steps-128": partial(steps, size=128, compiled=False),
    "steps-128-compiled": partial(steps, size=128, compiled=True),
    "steps-512": partial(steps, size=512, compiled=False),
    "steps-512-compiled": partial(steps, size=512, compiled=True),
    "autoattack": auto_attack,
    "part-model": part_model,
    "memory": memory,
}
