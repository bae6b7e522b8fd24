"""Time and memory of training (table 9) at any size, kept as records: pixel/table-9 with the settings given here.

    python benchmarks/cost.py --root DIR                                        (CIFAR-10, as the paper: hours on a GPU)
    python benchmarks/cost.py --root DIR --width 16 --limit 512 --epochs 1      (memory; its seconds say little)

Each row is trained in a process of its own. The mask by itself is timed by training_step.py.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from timing import keep, ratio

from counterpart import papers


def main() -> None:
    """Train what is missing, compare, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", required=True, help="folder that holds cifar-10-batches-py")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--limit", type=int, help="training images; default: all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--validation", type=int, help="validation images; default: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/cost"))
    given = parser.parse_args()
    changes = {
        "device": given.device,
        "data": {"root": given.root, "limit": given.limit},
        "model": {"width": given.width},
        "train": {"epochs": given.epochs, "validation_n": given.validation, "precision": "float32"},
    }
    experiment = papers.find("pixel/table-9")
    papers.run(experiment, "cifar10", "full-ours", given.runs, changes=changes)
    found = papers.measured(experiment, "cifar10", "full-ours", given.runs)
    setting = {"width": given.width, "images": given.limit, "epochs": given.epochs, "precision": "float32"}
    rows = [
        replace(one, name=f"cost/{row}, {column}", details={**one.details, **setting})
        for (row, column), records in found.items()
        for one in records
    ]
    rows += [
        ratio(f"cost/{one} over {other}, {column}", 1 + here, 1, f"paper {1 + (stated or 0):.3f}", **setting)
        for (one, other, column), (stated, here) in papers.overheads(experiment, "cifar10", found).items()
    ]
    keep("cost.jsonl", rows)


if __name__ == "__main__":
    main()
