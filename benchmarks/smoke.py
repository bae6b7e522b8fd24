"""Every table and figure of both papers at smoke scale: does all of it run, and how long does it take?

    python benchmarks/smoke.py --root DIR --frost DIR        (CIFAR-10 and the textures of frost; 2 processes)

Tables of a paper share their runs, so that a process takes a whole group: the part-model paper's figures, its tables,
the other paper's, and what trains rows of its own to measure them. The part-model paper runs on drawn objects.
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

DATA = {"pixel": "cifar10", "part": "synthetic-parts"}
PROCESSES = 2


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
    names = groups()
    with tempfile.TemporaryDirectory() as home, multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        parts = pool.imap(partial(run, home=Path(home), changes=changes), names, chunksize=1)
        spent = {name: seconds for part in parts for name, seconds in part.items()}
    for name, seconds in spent.items():
        print(f"{name:<24}{seconds:6.1f} s")
    done = [papers.EXPERIMENTS[name] for name in spent]
    cells = sum(len(one.rows) * len(papers.columns(one)) for one in done)
    setting = {"experiments": len(spent), "cells": cells, "processes": PROCESSES, "target": "<= 360"}
    keep("smoke.jsonl", [ratio("smoke/seconds of both papers", time.perf_counter() - started, 1, **setting)])


def groups() -> list[list[str]]:
    """Names of experiments, those that share runs together; the longest groups first."""
    grouped: dict[str, list[str]] = {"part figures": [], "part tables": [], "pixel": [], "pixel alone": []}
    for name, experiment in papers.EXPERIMENTS.items():
        if name == "parts/ade-parts":
            continue  # the rows of parts/synthetic-parts, on photographs
        paper = name.partition("/")[0]
        part = " tables" if name.startswith("parts/table") else " figures"
        alone = " alone" if experiment.fresh else ""
        grouped[paper + (alone if paper == "pixel" else part)].append(name)
    return list(grouped.values())


def run(names: list[str], home: Path, changes: dict[str, object]) -> dict[str, float]:
    """Seconds of each experiment of a group, in folders of its own."""
    torch.set_num_threads(1)
    spent = {}
    for name in names:
        experiment, started = papers.EXPERIMENTS[name], time.perf_counter()
        for images in dict.fromkeys(row.images for row in experiment.rows):  # other images go by themselves
            rows = [row.name for row in experiment.rows if row.images == images]
            data = DATA[name.partition("/")[0]]
            papers.run(experiment, data, "smoke", home / Path(names[0]).name, rows=rows, changes=changes)
        spent[name] = time.perf_counter() - started
    return spent


if __name__ == "__main__":
    main()
