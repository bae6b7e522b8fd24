"""Run folders made of synthetic records, so that the report is tested without training anything."""

from dataclasses import replace

import numpy as np
import pytest

from counterpart.pictures import Pictures
from counterpart.records import Record
from counterpart.rundir import RunDir

CLASSES = ["zero", "<b>one</b>", "two & more"]
METHODS = {"at": "AT", "part": "PART", "clean": "clean"}


def _interval(value, n):
    half = 1.96 * (value * (1 - value) / n) ** 0.5
    return value - half, value + half


def metrics(method, accuracies, n=1000, key="k1", seconds=2.0, **details):
    """Metric records of one evaluation: {"clean": 0.8, "PGD-20": 0.5, "worst case": 0.5}."""
    shared = {
        "method": method, "model": "resnet18", "data": "digits", "split": "test", "shape": [1, 16, 16],
        "fingerprint": "abc123", "norm": "linf", "eps": 8 / 255, "weights": "best", "evaluation": key,
        "forwards": n, "backwards": n,
    } | details  # fmt: skip
    return [
        Record(
            kind="metric", name=f"accuracy/{name}", value=value, n=n, interval=_interval(value, n), seed=0,
            config="c0ffee", seconds=seconds,
            details=shared | {"per_class": {cls: [round(value * n / 4), n // 4] for cls in CLASSES}},
        )
        for name, value in accuracies.items()
    ]  # fmt: skip


def epochs(count, burn_in=0, phase="adversarial", wobble=0.0):
    """A training log whose loss falls and whose accuracies rise."""
    return [
        Record(
            kind="epoch", name="epoch", seconds=3.0,
            details={
                "epoch": e, "phase": "burn-in" if e < burn_in else phase, "lr": 0.1,
                "loss": 2 * 0.9**e + wobble, "accuracy": 1 - 0.8**e, "validation_clean": 0.9 - 0.5 * 0.8**e,
                "validation_robust": 0.5 - 0.4 * 0.85**e + wobble, "mean_radius": None, "flat_maps": 0,
                "images_per_second": 100.0,
            },
        )
        for e in range(count)
    ]  # fmt: skip


def part_metrics(values, n=90, key="k1", per_part=None, **more):
    """Metric records of an evaluation's parts: {"mIoU clean": 0.5, ...}; {part: (IoU, n)} for each mIoU."""
    tables = {
        part: {"iou": iou, "n": shown, "interval": [iou - 0.1, iou + 0.1] if shown >= 10 else None}
        for part, (iou, shown) in (per_part or {}).items()
    }
    shared = {"data": "digits", "split": "test", "norm": "linf", "eps": 8 / 255, "evaluation": key, **more}
    return [
        Record(
            kind="metric", name=f"parts/{name}", value=value, n=n, interval=_interval(value, n),
            details=shared | ({"per_part": tables} if name.startswith("mIoU") else {}),
        )
        for name, value in values.items()
    ]  # fmt: skip


def panel(run, key="k1", count=4, channels=1, size=16, importance=True, uniform=False, parts=None):
    """Write a panel file and its record: sample 0 is fooled, all others stand.

    Args:
        parts: names of parts, the background first: with maps that hold each, as stripes; the last image is not
            annotated.
    """
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    blobs = [np.exp(-40 * ((x - 0.3 - 0.1 * i) ** 2 + (y - 0.5) ** 2)) for i in range(count)]
    clean = np.repeat(np.stack(blobs)[:, None], channels, axis=1).astype(np.float32)
    radius = np.where(clean[:, 0] > 0.4, 8 / 255, 7 / 255).astype(np.float32)
    if uniform:
        radius = np.broadcast_to(radius.mean(axis=(1, 2), keepdims=True), radius.shape).copy()
    adversarial = (clean + random.choice([-1, 1], clean.shape) * 8 / 255).clip(0, 1).astype(np.float32)
    maps = {"importance": random.random((count, 4, 4), dtype=np.float32)} if importance else {}
    labels = [i % 3 for i in range(count)]
    pictures = Pictures(
        clean, adversarial, radius, labels=labels, index=list(range(count)), clean_predictions=labels,
        adversarial_predictions=[1, *labels[1:]], confidences_clean=[0.93] * count,
        confidences_adversarial=[0.61] * count, classes=CLASSES, eps=8 / 255, **maps,
    )  # fmt: skip
    if parts:
        stripes = np.broadcast_to(np.arange(size) * len(parts) // size, (count, size, size)).astype(np.int16)
        pictures = replace(
            pictures, parts_true=stripes, parts=stripes[:, :, ::-1], parts_adversarial=np.zeros_like(stripes),
            part_names=list(parts), annotated=[True] * (count - 1) + [False],
        )  # fmt: skip
    file = run.path / "evaluations" / key / "panel.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures.write(file)
    run.add([run.artifact(file, "panel", "The first images of the test split.")])
    return file


@pytest.fixture
def make_run(tmp_path):
    """A factory of run folders: ``make_run("at", seed=1)``; extra records follow with ``run.add``."""

    def make(name="at", method="at", seed=0, data=None, **settings):
        config = {
            "name": name, "seed": seed, "runs": str(tmp_path), "data": data or {"name": "digits"},
            "train": {"method": method, "epochs": 8, **settings},
        }  # fmt: skip
        run = RunDir(tmp_path / name)
        run.create(config, dict)
        return run

    return make


@pytest.fixture
def records():
    """The makers of records above."""

    class Makers:
        classes = CLASSES
        metrics, part_metrics = staticmethod(metrics), staticmethod(part_metrics)
        epochs, panel = staticmethod(epochs), staticmethod(panel)

    return Makers


@pytest.fixture
def study(make_run):
    """AT, PART over three seeds, the uniform control and a clean run with another budget's worth of gaps."""
    at = make_run("at", "at")
    at.add(epochs(12))
    at.add(metrics("AT", {"clean": 0.8, "PGD-20": 0.512, "PGD-50x5 margin": 0.49, "worst case": 0.487}))
    panel(at, channels=3, size=32)
    for seed, shift in enumerate((0.0, 0.01, -0.01)):
        part = make_run(f"part/seed-{seed}", "part", seed)
        part.add(epochs(12, burn_in=3, phase="part", wobble=shift))
        values = {"clean": 0.81, "PGD-20": 0.52 + shift, "PGD-50x5 margin": 0.51, "worst case": 0.5 + shift}
        part.add(metrics("PART", values))
        panel(part)
    control = make_run("uniform", "part", control="uniform")
    control.add(epochs(12, burn_in=3, phase="part"))
    control.add(metrics("PART, uniform control", {"clean": 0.75, "PGD-20": 0.4, "worst case": 0.39}))
    panel(control, uniform=True, importance=False)
    return [at.path, at.path.parent / "part", control.path]
