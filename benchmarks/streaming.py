"""Images that do not fit into memory: our reader against torch's DataLoader, memory over an epoch, masks by memory map.

    python benchmarks/streaming.py --tar tiny-imagenet-20.tar         (a minute or two)
    python benchmarks/streaming.py --masks 1300000 --side 224         (masks alone, in a sparse file)
    python benchmarks/streaming.py --decode 64                        (JPEGs of the size of ImageNet's, drawn here)

The images are the training JPEGs of a Tiny-ImageNet tar, decoded and put together in batches of 128 in a drawn order;
both sides use two workers and take turns in one process. Ours reads files by threads where the network runs on a
processor, and by processes where it runs on a GPU: both are measured. Beside wall time the processor time of all
workers counts, because it does not depend on what else runs on the machine. torch's DataLoader gets
what people write: a PIL image to a uint8 tensor, one sample at a time, and the default collation.
"""

import argparse
import resource
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from timing import keep, ratio
from torch.utils.data import DataLoader, Dataset

from counterpart.data import ImageSet, batches, epoch_order
from counterpart.data.decoding import decode
from counterpart.data.mapped import room_for
from counterpart.records import Record

BATCH = 128
CPU = torch.device("cpu")


class Files(Dataset[tuple[torch.Tensor, int]]):
    """What people write for a folder of JPEGs."""

    def __init__(self, paths: list[Path], labels: list[int]) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
        image = np.array(Image.open(self.paths[position]).convert("RGB"))
        return torch.from_numpy(image).permute(2, 0, 1), self.labels[position]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tar", type=Path)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--masks", type=int, default=0)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--decode", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.tar is not None:
        with TemporaryDirectory() as folder, tarfile.open(given.tar) as tar:
            tar.extractall(folder, filter="data")
            paths = sorted(Path(folder).rglob("train/*/images/*.JPEG"))[: given.images]
            keep("streaming.jsonl", against_torch(paths, given.workers, given.repeats))
    if given.decode:
        keep("streaming.jsonl", [decoding(given.decode, given.side)])
    if given.masks:
        keep("streaming.jsonl", masks(given.masks, given.side))


def against_torch(paths: list[Path], workers: int, repeats: int) -> list[Record]:
    """Images per second of both, and the memory of ours over an epoch."""
    names = sorted({path.parts[-3] for path in paths})
    labels = [names.index(path.parts[-3]) for path in paths]
    images = ImageSet(
        name="tiny", split="train", classes=tuple(names), labels=torch.tensor(labels), index=torch.arange(len(paths)),
        fingerprint="0" * 12, shape=(3, 64, 64), files=tuple(paths),
    )  # fmt: skip
    order = epoch_order(len(paths), 0, 0)
    resident: list[int] = []

    def ours(count: int) -> None:
        for batch in batches(replace(images, workers=count), batch_size=BATCH, device=CPU, order=order):
            resident.append(memory())
            assert batch.images.dtype == torch.float32

    def theirs() -> None:
        loader = DataLoader(
            Files(paths, labels), batch_size=BATCH, sampler=order.tolist(), num_workers=workers
        )
        for pixels, _ in loader:
            pixels.float().div(255)

    works: dict[str, Callable[[], None]] = {
        "ours, threads": lambda: ours(0),
        "ours, processes": lambda: ours(workers),
        "torch DataLoader": theirs,
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            resident.clear()
            spent = spend(work)
            if turn:
                taken[name].append(spent)
            if name == "ours, processes":
                growth = max(resident) - resident[len(resident) // 10]
    setting = {"workers": workers, "batch_size": BATCH, "images": len(paths), "side": 64}
    rows = []
    middle = {name: [median(side) for side in zip(*spent, strict=True)] for name, spent in taken.items()}
    for name, (wall, processor) in middle.items():
        rates = sorted(len(paths) / wall for wall, _ in taken[name])
        details = {
            "unit": "images/s",
            "processor_seconds": processor,
            "images_per_processor_second": len(paths) / processor,
        }
        rows.append(
            Record(
                "timing",
                f"streaming/{name}",
                len(paths) / wall,
                repeats,
                (rates[0], rates[-1]),
                details=details | setting,
            )
        )
    for name in ("ours, threads", "ours, processes"):
        for kind, place in (("wall time", 0), ("processor time", 1)):
            gained = middle["torch DataLoader"][place] / middle[name][place]
            rows.append(
                ratio(f"streaming/{name} over torch, {kind}", gained, repeats, target=">= 1", **setting)
            )
    details = {"unit": "MiB", "target": "flat", **setting}
    rows.append(
        Record(
            "timing",
            "streaming/memory grown from a tenth of the epoch to its end",
            growth / 2**20,
            1,
            details=details,
        )
    )
    return rows


def decoding(count: int, side: int) -> Record:
    """Processor time to decode a JPEG of 500 x 375 pixels, smooth with some noise, and to scale and crop it."""
    draws = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.jpg" for number in range(count)]
        for file in files:
            coarse = Image.fromarray(draws.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=float)
            noisy = smooth + draws.normal(0, 10, smooth.shape)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=90)
        size = sum(file.stat().st_size for file in files) / count
        decode(files[0], side)
        started = time.process_time()
        for file in files:
            decode(file, side)
        seconds = (time.process_time() - started) / count
    details = {"unit": "ms of a core", "bytes": size, "side": side, "pixels": [500, 375]}
    return Record("timing", "streaming/one JPEG", 1000 * seconds, count, details=details)


def masks(count: int, side: int) -> list[Record]:
    """Memory and time of masks in a mapped file, of which some are written in order and read in a drawn one."""
    generator, before = torch.Generator().manual_seed(0), memory()
    planes = room_for((count, side, side), torch.uint8, most=0)
    images = ImageSet(
        name="generated", split="train", classes=("a",), labels=torch.zeros(count, dtype=torch.int64),
        index=torch.arange(count), fingerprint="0" * 12, shape=(3, side, side), files=(Path(),),
        masks=planes, mask_rows=torch.arange(count).flip(0),
    )  # fmt: skip
    written = min(count, 100 * BATCH)
    for row in range(written):
        planes[row] = row % 256
    started = time.perf_counter()
    for rows in torch.randperm(written, generator=generator).split(BATCH):
        shares = images.read_masks(count - 1 - rows)
        assert shares is not None
        assert torch.equal((shares[:, -1, -1] * 255).round().long(), rows % 256)
    rate, held = written / (time.perf_counter() - started), memory() - before
    setting = {"masks": count, "side": side, "bytes": planes.numel(), "read": written}
    return [
        Record("timing", "streaming/masks by memory map", rate, 1, details={"unit": "masks/s", **setting}),
        Record(
            "timing",
            "streaming/memory of masks and index",
            held / 2**20,
            1,
            details={"unit": "MiB", **setting},
        ),
    ]


def spend(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of wall time, and of processor time of this process and of its workers."""
    started, before = time.perf_counter(), processor_time()
    work()
    return time.perf_counter() - started, processor_time() - before


def processor_time() -> float:
    """Seconds so far of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory() -> int:
    """Bytes that this process holds, without what is mapped from files."""
    status = Path("/proc/self/status").read_text()
    held = {
        line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.startswith("Rss")
    }
    return 1024 * (held["RssAnon"] + held["RssShmem"])


if __name__ == "__main__":
    main()
