"""Copy an experiment's records to ``results/``: absolute paths in their commands cut to their last part, and numbers in
their details to six digits.

    counterpart papers run pixel/controls --scale small --data.root DIR --seeds 0,1,2       (a quarter of an hour a row)
    python benchmarks/keep_papers.py runs/papers/small/pixel-controls-cifar10.jsonl

What ``results/`` has of the same row, column, seed and fold is replaced, the rest stays: an experiment may be continued
on another machine. Delete the file first where its settings have changed.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from timing import RESULTS, shortened

from counterpart import records


def main() -> None:
    """Read, shorten, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--without", default="", help="columns to leave out, with commas between them")
    given = parser.parse_args()
    out = set(given.without.split(","))
    kept = [
        replace(one, provenance={**one.provenance, "command": shortened(one.provenance["command"])})
        for one in records.read(given.file)
        if one.name.rpartition("/")[2] not in out
    ]
    target, fresh = RESULTS / given.file.name, RESULTS / f".{given.file.name}"
    merged = {(one.name, one.seed, one.details.get("fold")): one for one in [*records.read(target), *kept]}
    fresh.unlink(missing_ok=True)  # of a run that was killed here
    records.write(fresh, [replace(one, details=six_digits(one.details)) for one in merged.values()])
    fresh.replace(target)
    print(f"Kept {len(kept)} records in results/{target.name}, which now holds {len(merged)}")


def six_digits(value: Any) -> Any:
    """A JSON value whose fractions have six digits: parts by the dozen would fill megabytes."""
    if isinstance(value, dict):
        return {key: six_digits(one) for key, one in value.items()}
    if isinstance(value, list):
        return [six_digits(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
