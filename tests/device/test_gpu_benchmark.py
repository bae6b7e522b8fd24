"""``benchmarks/gpu.py`` runs from end to end on a device that is only pretended, and resumes."""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpart import records

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The module, whose records go into a folder of their own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    import timing

    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "machine", lambda device: "a pretended GPU")
    return gpu


@pytest.fixture
def packed(tmp_path):
    """Forty images to train on and ten to judge, as JPEG files end to end."""
    arrays, generator = {}, np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        files = []
        for pixels in generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            files.append(file.getvalue())
        arrays[f"jpeg_{split}"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"offsets_{split}"] = np.cumsum([0, *map(len, files)])
        arrays[f"labels_{split}"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(tmp_path / "packed.npz", **arrays)
    return tmp_path / "packed.npz"


@pytest.fixture
def given(packed, tmp_path):
    """The command line of a very small run."""
    return argparse.Namespace(
        data=packed,
        runs=tmp_path / "runs",
        device="cuda",
        width=2,
        epochs=1,
        images=4,
        again=False,
        eager=True,
    )


def smaller(parts, monkeypatch):
    """Let the other benchmarks run on less than a GPU would take."""
    real = parts.call
    sizes = {
        "training_step.py": ["--batch-size", "4", "--repeats", "1"],
        "part_step.py": [
            "--batch-size", "2", "--size", "32", "--encoder", "timm/resnet10t", "--steps", "1", "--repeats", "1",
        ],
        "autoattack.py": ["--scale", "0.02", "--batch-size", "4"],
    }  # fmt: skip

    def call(script, words):
        real(script, [*(word for word in words if word != "--compile"), *sizes[script]])

    monkeypatch.setattr(parts, "call", call)
    monkeypatch.setattr(parts, "PRODUCT_SIZE", 16)
    monkeypatch.setattr(parts, "MEMORY_SIZES", (4,))


def kept(folder, file="gpu.jsonl"):
    return [record.name for record in records.read(folder / file)]


@pytest.mark.parametrize(("part", "names"), [
    ("facts", ["gpu/bf16 product", "gpu/float32 product", "gpu/copy"]),
    ("train-at", ["gpu/at, all epochs", "gpu/at, peak memory", "gpu/at, clean", "gpu/at, worst case"]),
    ("steps-128", ["gpu/arithmetic of a step of AT"]),
])  # fmt: skip
def test_each_part_leaves_its_records_and_is_then_passed_over(
    device, bench, given, tmp_path, monkeypatch, capsys, part, names
):
    import gpu_parts

    smaller(gpu_parts, monkeypatch)
    assert bench.run(part, given) == 0
    found = kept(tmp_path)
    assert set(names) <= set(found)
    assert found[-1] == f"gpu/{part}"
    assert bench.run(part, given) == 0
    assert "has records of a pretended GPU" in capsys.readouterr().out
    assert kept(tmp_path) == found


@pytest.mark.slow
@pytest.mark.parametrize("part", ["parity", "train-part", "autoattack", "part-model", "memory"])
def test_the_long_parts_run_too(device, bench, given, tmp_path, monkeypatch, part):
    import gpu_parts

    smaller(gpu_parts, monkeypatch)
    assert bench.run(part, given) == 0
    assert kept(tmp_path)[-1] == f"gpu/{part}"


def test_a_training_that_its_slot_ended_is_no_record_and_goes_on(bench, given, tmp_path, monkeypatch, capsys):
    import gpu_parts

    given.device, given.epochs = "cpu", 2
    monkeypatch.setattr(gpu_parts, "TRAINING_MINUTES", 0.0001)
    assert bench.run("train-at", given) == 0
    assert "not finished. The same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "gpu.jsonl").exists()
    monkeypatch.setattr(gpu_parts, "TRAINING_MINUTES", 5)
    assert bench.run("train-at", given) == 0
    assert "gpu/train-at" in kept(tmp_path)


def test_what_lacks_is_named_before_anything_is_imported(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "MODULES", {**bench.MODULES, "pydantic": "no_such_module"})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--part", "facts"])
    assert bench.main() == 1
    said = capsys.readouterr().out
    assert "missing: pydantic>=" in said
    assert "Nothing was run" in said


def test_every_part_that_is_named_is_there(bench):
    from gpu_parts import PARTS

    assert tuple(PARTS) == bench.NAMES
