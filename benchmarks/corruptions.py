"""Common corruptions made on the fly: images per second, and what 1,000 images under all 75 of ImageNet-C take.

    python benchmarks/corruptions.py --size 224 --n 16              (2-core CPU: about a minute)
    python benchmarks/corruptions.py --size 32 --n 512 --frost DIR

Frost needs its textures; without them it is left out, and the record says so. Random smooth images: no corruption but
JPEG takes longer for one image than for another. Counted are seconds of a core (process time), which other work on the
machine disturbs less than the clock; wall-clock seconds and the load stand beside them.
"""

import argparse
import os
import time
from pathlib import Path

import torch
from timing import keep, ratio, seconds
from torch.nn import functional as F

from counterpart.data.corruptions import BENCHMARK, SEVERITIES, constants_for, corrupt, read_textures, unfit
from counterpart.records import Record
from counterpart.seeding import Keys


def main() -> None:
    """Time, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--frost", type=Path)
    given = parser.parse_args()
    textures = read_textures(given.frost) if given.frost else None
    names = [name for name in BENCHMARK if unfit(name, 3, textures is not None) is None]
    rough = torch.rand(given.n, 3, given.size, given.size, generator=torch.Generator().manual_seed(0))
    images = F.avg_pool2d(rough, 5, stride=1, padding=2)
    keys = Keys(0, "corruption", torch.arange(given.n))
    setting = {
        "size": given.size, "constants": constants_for(given.size, given.size), "threads": torch.get_num_threads(),
        "left_out": [name for name in BENCHMARK if name not in names],
    }  # fmt: skip
    rows, cores, clock = [], 0.0, 0.0
    for name in names:
        corrupt(images[:1], name, 5, keys[:1], frost=textures)  # tables are made once
        for severity in SEVERITIES:
            before = time.process_time()
            wall = seconds(
                lambda s=severity, n=name: corrupt(images, n, s, keys, frost=textures), images.device
            )
            taken = time.process_time() - before
            cores, clock = cores + taken / given.n, clock + wall / given.n
            details = {"unit": "images/core-s", "wall_seconds": wall, **setting}
            rows.append(
                Record("timing", f"corruptions/{name}/{severity}", given.n / taken, given.n, details=details)
            )
    what = f"corruptions/core-s for 1,000 images, {len(names)} x {len(SEVERITIES)}"
    more = {"wall_seconds": 1000 * clock, "load": os.getloadavg()[0]}
    rows.append(
        ratio(what, 1000 * cores, given.n, "<= 1200 at 224 pixels (10 minutes of 2 cores)", **setting, **more)
    )
    keep("corruptions.jsonl", rows)


if __name__ == "__main__":
    main()
