"""Every table and figure of both papers at smoke scale: does all of it run, and how long does it take?

    python benchmarks/smoke.py --root DIR --frost DIR        (CIFAR-10 and the textures of frost; 2 processes)

One process for each paper, since tables of a paper share their runs. The part-model paper runs on drawn objects.
"""

import argparse
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from timing import keep, ratio

from counterpart import papers

DATA = {"pixel/": "cifar10", "part/": "synthetic-parts"}


def main() -> None:
    """Run all, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--frost", required=True, help="folder of the textures of frost")
    given = parser.parse_args()
    changes = {
        "device": "cpu",
        "threads": 1,
        "data": {"root": given.root},
        "corruptions": {"frost": given.frost},
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, multiprocessing.get_context("spawn").Pool(len(DATA)) as pool:
        parts = pool.map(partial(paper, home=Path(home), changes=changes), DATA)
    spent = {name: seconds for part in parts for name, seconds in part.items()}
    for name, seconds in spent.items():
        print(f"{name:<24}{seconds:6.1f} s")
    cells = sum(len(one.rows) * len(papers.columns(one)) for one in papers.EXPERIMENTS.values())
    setting = {"experiments": len(spent), "cells": cells, "processes": len(DATA), "target": "<= 360"}
    keep("smoke.jsonl", [ratio("smoke/seconds of both papers", time.perf_counter() - started, 1, **setting)])


def paper(prefix: str, home: Path, changes: dict[str, object]) -> dict[str, float]:
    """Seconds of each experiment of a paper."""
    torch.set_num_threads(1)
    spent = {}
    for name, experiment in papers.EXPERIMENTS.items():
        if name.startswith(prefix):
            started = time.perf_counter()
            for images in dict.fromkeys(
                row.images for row in experiment.rows
            ):  # rows on other images go by themselves
                rows = [row.name for row in experiment.rows if row.images == images]
                papers.run(experiment, DATA[prefix], "smoke", home, rows=rows, changes=changes)
            spent[name] = time.perf_counter() - started
    return spent


if __name__ == "__main__":
    main()
