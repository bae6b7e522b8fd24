"""Copy the records of where-profiles to ``results/``, each with the name of its run; commands without absolute paths.

counterpart train digits/at --threads 1        (and digits/part, digits/part-uniform)
counterpart train digits/at --train.method trades --name digits-trades --threads 1
counterpart where runs/digits-at --threads 1 --n 300 --eps 0.2 --attacks '[{attack: pgd, steps: 30}]' \
    --regions top,bottom,window
python benchmarks/keep_where.py digits runs/digits-at runs/digits-part runs/digits-part-uniform runs/digits-trades

What is written is the latest profile of each run; the file is made anew.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from keep_papers import six_digits
from timing import RESULTS, shortened

from counterpart import records
from counterpart.report.runs import Run
from counterpart.rundir import RunDir


def main() -> None:
    """Read, shorten, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="the file is results/where-NAME.jsonl")
    parser.add_argument("runs", nargs="+", type=Path)
    given = parser.parse_args()
    rows = []
    for folder in map(RunDir, given.runs):
        for record in Run(folder, folder.config(), folder.records()).profile:
            provenance = {**record.provenance, "command": shortened(record.provenance["command"])}
            details = {**six_digits(record.details), "run": folder.name}
            rows.append(replace(record, details=details, provenance=provenance))
    target, fresh = RESULTS / f"where-{given.name}.jsonl", RESULTS / f".where-{given.name}.jsonl"
    fresh.unlink(missing_ok=True)  # of a run that was killed here
    records.write(fresh, rows)
    fresh.replace(target)
    print(f"Kept {len(rows)} records in results/{target.name}")


if __name__ == "__main__":
    main()
