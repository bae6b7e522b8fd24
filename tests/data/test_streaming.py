"""Batches that are read ahead are the same in any number of workers, which hold little and outlive nobody."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data import comparing
from tests.data.comparing import same
from torch.utils.data import Dataset

from counterpart.data import Augmentation, ImageSet, epoch_order, objects, streaming
from counterpart.data.objects import read_objects, read_splits
from counterpart.data.parts import Parts
from counterpart.errors import UserError

SOURCE = str(Path(__file__).parents[2] / "src")
CPU = torch.device("cpu")
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")


class Counted(Dataset):
    """Image i is i everywhere, of class i mod 3."""

    classes = ("a", "b", "c")

    def __init__(self, n=40, floats=False):
        self.n, self.floats, self.shift = n, floats, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError
        value = (i + self.shift) % 250
        image = torch.full((3, 8, 8), value / 255 if self.floats else value)
        return (image.float() if self.floats else image.byte()), i % 3


@pytest.fixture
def large(monkeypatch):
    """Nothing fits into memory."""
    monkeypatch.setattr(objects, "IN_MEMORY", 0)


@pytest.fixture
def on_disk(tmp_path):
    """23 images in files, with part masks that show the same numbers."""
    n = 23
    images, masks = ([tmp_path / f"{kind}{i:02d}.png" for i in range(n)] for kind in "im")
    for i in range(n):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(images[i])
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(masks[i])
    names = {"a": {f"part {k}": k for k in range(1, n)}, "b": {}}
    parts = Parts(names, n - 1, torch.arange(n) % 5 > 0, files=tuple(masks), convert=lambda ids: 2 * ids)
    return ImageSet(
        name="toy", split="train", classes=("a", "b"), labels=torch.arange(n) % 2, index=torch.arange(n) + 40,
        fingerprint="0" * 12, shape=(3, 8, 8), files=tuple(images), parts=parts,
        alter=lambda pixels, index: pixels + (index - 40).view(-1, 1, 1, 1).to(pixels),
    )  # fmt: skip


def collect(images, workers, **arguments):
    return comparing.collect(dataclasses.replace(images, workers=workers), **arguments)


@FORKS
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_any_number_of_workers_reads_the_same_in_the_same_order(on_disk, workers):
    arguments = {"order": epoch_order(23, 0, 1), "augmentation": Augmentation(2), "seed": 3, "epoch": 1}
    alone = collect(on_disk, 0, **arguments)
    same(alone, collect(on_disk, workers, **arguments))
    plain = collect(on_disk, workers, order=arguments["order"])
    number = torch.cat([batch.index for batch in plain]) - 40
    assert number.tolist() == arguments["order"].tolist()
    pixels = torch.cat([batch.images for batch in plain])
    assert torch.equal((pixels * 255).round().long(), (2 * number).view(-1, 1, 1, 1).expand_as(pixels))
    ids = torch.cat([batch.parts for batch in plain])
    assert torch.equal(ids, (2 * number * (number % 5 > 0)).view(-1, 1, 1).expand_as(ids))


@FORKS
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("floats", [False, True])
def test_a_data_set_that_does_not_fit_is_read_on_demand_and_is_what_it_is_in_memory(
    monkeypatch, workers, floats
):
    data = Counted(floats=floats)
    within = read_objects(data, split="train")
    monkeypatch.setattr(objects, "IN_MEMORY", 0)
    beyond = read_objects(data, split="train")
    assert beyond.pixels is None
    assert beyond.fingerprint == within.fingerprint
    assert (beyond.classes, beyond.shape, beyond.names) == (within.classes, within.shape, within.names)
    order = epoch_order(40, 0, 0)
    same(collect(within, 0, order=order), collect(beyond, workers, order=order))
    few = torch.tensor([7, 3, 20])
    same(collect(within.subset(few), 0), collect(beyond.subset(few), workers))
    assert torch.equal(within.read(few), beyond.read(few))


def test_splits_of_a_data_set_that_does_not_fit_are_those_in_memory(monkeypatch):
    data = Counted()
    within = read_splits(data, 0.2)
    monkeypatch.setattr(objects, "IN_MEMORY", 0)
    beyond = read_splits(data, 0.2)
    for name in ("train", "validation", "test"):
        ours, theirs = getattr(beyond, name), getattr(within, name)
        assert torch.equal(ours.index, theirs.index)
        assert torch.equal(ours.read(torch.arange(len(ours))), theirs.pixels)


def test_rows_of_web_data_sets_are_pictures_with_classes(large):
    rows = [
        {"__key__": str(i), ".jpg": Image.fromarray(np.full((8, 8, 3), i, np.uint8)), ".cls": i % 2}
        for i in range(10)
    ]
    read = read_objects(rows)
    assert read.samples is not None
    assert read.labels.tolist() == [0, 1] * 5
    assert read.read(torch.tensor([4]))[0, 0, 0, 0] == 4


def test_a_sample_that_changes_is_refused(large):
    data = Counted()
    images = read_objects(data)
    data.shift = 1
    with pytest.raises(
        UserError, match="sample 7 of Counted came out otherwise than when the data set was opened"
    ):
        images.read(torch.tensor([7]))


def test_samples_of_another_form_or_label_are_refused(large):
    data = [(np.zeros((3, 8, 8), np.uint8), 0)] * 3
    with pytest.raises(ValueError, match=r"sample 3 is \(3, 9, 9\) of torch\.uint8, those before it"):
        read_objects([*data, (np.zeros((3, 9, 9), np.uint8), 0)])
    with pytest.raises(ValueError, match="the label of sample 3 is 'cat': expected one class index"):
        read_objects([*data, (np.zeros((3, 8, 8), np.uint8), "cat")])


@FORKS
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_no_more_is_read_ahead_than_there_are_slots(workers):
    asked = []

    def jobs():
        for job in range(100):
            asked.append(job)
            yield job

    room = [((1,), torch.int64)]
    coming = streaming.stream(lambda job: [torch.tensor([job])], jobs(), room, workers)
    slots = workers + 2
    for place in range(50):
        job, (read,) = next(coming)
        assert job == int(read) == place
        assert len(asked) == slots + place
    coming.close()


def test_smaller_batches_take_part_of_their_slot():
    jobs = [3, 1, 2]
    read = streaming.stream(lambda size: [torch.full((size, 2), size)], jobs, [((3, 2), torch.int64)], 0)
    assert [(size, tensor.tolist()) for size, (tensor,) in read] == [
        (size, [[size] * 2] * size) for size in jobs
    ]


@FORKS
def test_what_a_worker_cannot_read_is_said_as_without_workers(on_disk):
    on_disk.files[12].write_bytes(b"no image")
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"Cannot read the image .*i12\.png.* Replace or remove it\.$"):
            collect(on_disk, workers)


@FORKS
def test_a_worker_that_is_killed_is_told_in_one_line():
    def read(job):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        UserError, match=r"a process that reads images was killed: memory, or room in /dev/shm"
    ):
        list(streaming.stream(read, range(3), [((1,), torch.int64)], 2))


ORPHANS = """
import os, sys, time
import torch
from counterpart.data import streaming

def read(job):
    os.write(1, b"%d\\n" % os.getpid())
    return [torch.tensor([job])]

for job, _ in streaming.stream(read, range(100), [((1,), torch.int64)], 2):
    time.sleep(60)
"""


@FORKS
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up in /proc")
def test_workers_end_when_their_parent_is_killed():
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANS], env=environment, stdout=subprocess.PIPE, text=True
    )
    workers = {int(parent.stdout.readline()) for _ in range(4)}
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def _runs(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@FORKS
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory off /proc")
def test_memory_is_flat_over_an_epoch():
    """60 MB of images go through; what is held stays within a few MB of what the first batches took."""
    size = 64 * 3 * 64 * 64
    room, held = [((64, 3, 64, 64), torch.uint8)], []
    jobs = range(80)
    for job, (pixels,) in streaming.stream(
        lambda job: [torch.full((64, 3, 64, 64), job).byte()], jobs, room, 2
    ):
        assert int(pixels[-1, -1, -1, -1]) == job
        held.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert len(jobs) * size > 60e6
    assert max(held[10:]) - held[10] < 4e6


def test_processors_are_shared_by_the_processes_of_a_host(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert streaming.default_workers() == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert streaming.default_workers() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert streaming.default_workers() == 0


def test_only_what_goes_to_cuda_is_pinned(monkeypatch):
    from counterpart.data import loaders

    class Pixels(torch.Tensor):
        def pin_memory(self):
            pinned.append(self)
            return self

        def to(self, device, non_blocking=False):
            moved.append((device.type, non_blocking))
            return self

    pinned, moved = [], []
    pixels = torch.zeros(2, dtype=torch.uint8).as_subclass(Pixels)
    loaders._moved(pixels, CPU, True)
    loaders._moved(pixels, torch.device("cuda"), False)
    assert (len(pinned), moved) == (0, [("cpu", False), ("cuda", False)])
    loaders._moved(pixels, torch.device("cuda"), True)
    assert (len(pinned), moved[-1]) == (1, ("cuda", True))
