"""Sample i is trained under its own mask: what the steps of real runs are given, with one and with two processes."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from counterpart.importance import store
from counterpart.training import loop

SOURCE = str(Path(__file__).parents[2] / "src")
COUNT, SIDE = 24, 8

# Trains each configuration and keeps what its steps were given. A class activation map is the image itself here, so
# that a stored map, like a mask from a file, has to be equal to the image that it comes with.
WATCHED = """
import json, sys
import torch
from safetensors.torch import save_file
from counterpart import distributed, jobs
from counterpart.config import resolve
from counterpart.importance import store
from counterpart.training import loop

torch.set_num_threads(1)
store.explain = lambda probe, labels, map_class, kind: probe.images[:, 0]
train_step, seen = loop.train_step, []

def watch(batch, size, epoch, *rest, **options):
    for image, mask, index in zip(batch.images, batch.importance, batch.index):
        seen.append((torch.tensor([epoch, index]), image, mask.float()))
    return train_step(batch, size, epoch, *rest, **options)

loop.train_step = watch
for settings in sys.argv[2:]:
    config = resolve(json.loads(settings))
    jobs.train(config)
    who, images, masks = (torch.stack(parts) for parts in zip(*seen))
    seen.clear()
    file = f"{sys.argv[1]}/{config.name}-{distributed.world_size()}-{distributed.rank()}.safetensors"
    save_file({"who": who, "images": images, "masks": masks}, file)
distributed.stop()
"""


def lay_out(folder):
    """Images whose red channel is noise without 0 and their own mask, and whose green one is their number plus 1."""
    numbers = {}
    for number in range(COUNT + 6):
        split, name = ("train", "ab"[number % 2]) if number < COUNT else ("test", "ab"[number % 2])
        red = np.random.default_rng(number).integers(1, 255, (SIDE, SIDE), dtype=np.uint8)
        red[0, 0] = 255  # every map has the same peak
        for kind, pixels in (
            ("images", np.stack([red, np.full_like(red, number + 1), red], 2)),
            ("masks", red),
        ):
            path = folder / kind / split / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        numbers[number] = torch.from_numpy(red) / 255
    return numbers


def given(folder, name, processes):
    """(epoch, number) -> image and mask, over all processes."""
    found = {}
    for rank in range(processes):
        tensors = load_file(folder / f"{name}-{processes}-{rank}.safetensors")
        for (epoch, _), image, mask in zip(
            tensors["who"].tolist(), tensors["images"], tensors["masks"], strict=True
        ):
            number = int((image[1].max() * 255).round()) - 1  # padding is 0
            assert (epoch, number) not in found
            found[epoch, number] = image, mask
    return found


@pytest.mark.slow
def test_masks_follow_their_images_with_one_and_two_processes(tmp_path, monkeypatch):
    reds = lay_out(tmp_path)
    base = {
        "runs": str(tmp_path / "runs"),
        "device": "cpu",
        "data": {"name": "folder", "root": str(tmp_path / "images"), "padding": 2, "flip": True},
        "model": {"name": "wrn-10-1", "width": 2},
        "attack": {"eps": 0.1, "steps": 1},
        "train": {"method": "part", "epochs": 3, "batch_size": 8, "precision": "float32",
                  "validation_n": 2, "validation_steps": 1},
    }  # fmt: skip
    own = {"rule": "file", "files": str(tmp_path / "masks")}
    parts = {"own": own, "stored": {"refresh_epochs": 2}}
    script = tmp_path / "run.py"
    script.write_text(WATCHED)
    arguments = {
        processes: [str(tmp_path)] + [
            json.dumps({**base, "name": name, "runs": f"{base['runs']}-{processes}",
                        "mask": {"eps_low": 0.05, "burn_in": 0, **part}})
            for name, part in parts.items()
        ]
        for processes in (1, 2)
    }  # fmt: skip
    for module, name in ((store, "explain"), (loop, "train_step")):
        monkeypatch.setattr(
            module, name, getattr(module, name)
        )  # put back after the script has replaced them
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments[1]])
    runpy.run_path(str(script))
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, str(script), *arguments[2]],
        env={**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in parts:
        one, two = (given(tmp_path, name, processes) for processes in (1, 2))
        assert one.keys() == two.keys()
        assert all(torch.equal(x, y) for key in one for x, y in zip(one[key], two[key], strict=True))
        # The validation images are held out; which of the others a last small batch would be is the epoch's.
        numbers = {number for _, number in one}
        assert {epoch for epoch, _ in one} == {0, 1, 2}
        assert len(numbers) > COUNT // 2
        padded = mirrored = 0
        for (_, number), (image, mask) in one.items():
            inside = image[0] > 0
            tolerance = 0 if name == "own" else 5e-4  # stored in half precision
            assert (mask - image[0])[inside].abs().max() <= tolerance
            assert (mask[~inside] - reds[number].min()).abs().le(5e-4).all()
            padded += not bool(inside.all())
            mirrored += comes_mirrored(image[0], reds[number])
        assert padded > len(one) // 4
        assert len(one) // 4 < mirrored < 3 * len(one) // 4


def comes_mirrored(image, original):
    """Which of the two ways a crop of the original explains an image; exactly one does."""
    fits = []
    for source in (original, original.flip(1)):
        around = torch.nn.functional.pad(source, [2] * 4)
        crops = [around[y : y + SIDE, x : x + SIDE] for y in range(5) for x in range(5)]
        fits.append(any(torch.equal(image, crop) for crop in crops))
    assert sum(fits) == 1
    return fits[1]
