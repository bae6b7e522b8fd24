"""Does ``mask.eps_low auto`` pay? On the digits: AT, PART at 7/8 of eps, its matched-mean control, and the search.

    python benchmarks/eps_low_auto.py --seeds 0,1,2    (minutes a run on a slow core; it goes on where it was)

The last weights, as the paper judges them, on all test images: clean, PGD-20, and the worst case of PGD-20 and the
minimum-margin attack on all nine wrong classes. Differences to the search are paired by image and seed; McNemar's tests
are of one seed each, and their p are corrected by Holm over all of them.
"""

import argparse
import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from timing import keep

from counterpart import jobs
from counterpart.config import resolve
from counterpart.recipes import load
from counterpart.records import Record
from counterpart.rundir import RunDir
from counterpart.statistics import holm, mcnemar, over_seeds, paired_difference, wilson

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "AT": ("digits/at", {}),
    "PART 7/8": ("digits/part", {}),
    "PART 7/8 uniform": ("digits/part-uniform", {}),
    "PART auto": ("digits/part", {"mask": {"eps_low": "auto"}}),
}
AUTO = "PART auto"
ATTACKS = [{"steps": 20}, {"attack": "minimum-margin", "targets": 9, "steps": 20}]
COLUMNS = ("clean", "PGD-20", "worst case")


def main() -> None:
    """Train and judge what is missing, compare, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, default=Path("runs/eps-low-auto"))
    parser.add_argument("--rows", default=",".join(RUNS), help="names of rows, PART auto among them")
    given = parser.parse_args()
    wanted = {name: RUNS[name] for name in given.rows.split(",")}
    seeds = [int(seed) for seed in given.seeds.split(",")]
    right: dict[str, dict[str, list[list[bool]]]] = {name: {} for name in wanted}
    chosen: list[float] = []
    for seed in seeds:
        for name, (recipe, changes) in wanted.items():
            where = {"runs": str(given.runs), "name": f"{name.replace('/', 'of')} seed {seed}", "seed": seed}
            run = jobs.train(resolve(load(recipe), changes, where)).run
            jobs.evaluate(str(run.path), {"evaluate": {"attacks": ATTACKS, "weights": "last"}})
            for column, answers in _answers(run).items():
                right[name].setdefault(column, []).append(answers)
            if name == AUTO:
                chosen.append([r for r in run.records() if r.kind == "epoch"][-1].details["eps_low"])
    keep("eps_low_auto.jsonl", _compare(right, chosen, seeds))


def _answers(run: RunDir) -> dict[str, list[bool]]:
    """Column -> whether each test image is right."""
    [table] = (run.path / "evaluations").glob("*/images.csv")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right = [row["clean"] == row["label"] for row in rows]
    fell = [row["first_fooled_by"] for row in rows]
    return {
        "clean": right,
        "PGD-20": [ok and by != "PGD-20" for ok, by in zip(right, fell, strict=True)],
        "worst case": [ok and not by for ok, by in zip(right, fell, strict=True)],
    }


def _compare(
    right: dict[str, dict[str, list[list[bool]]]], chosen: list[float], seeds: list[int]
) -> list[Record]:
    """Accuracies over seeds, and the search against each of the others."""
    about = {"seeds": seeds, "weights": "last", "data": "digits test"}
    made = []
    for name, columns in right.items():
        for column in COLUMNS:
            values = [sum(one) / len(one) for one in columns[column]]
            mean, sd, interval, _ = over_seeds(
                values, [wilson(sum(one), len(one)) for one in columns[column]]
            )
            details = {**about, "values": values, "sd": sd, "images": len(columns[column][0])}
            made.append(Record("metric", f"{name}/{column}", mean, len(seeds), interval, details=details))
    for name in right:
        for column in COLUMNS if name != AUTO else ():
            pairs = list(zip(right[AUTO][column], right[name][column], strict=True))
            gain = paired_difference(pairs)
            ours = [sum(x and not y for x, y in zip(*pair, strict=True)) for pair in pairs]
            others = [sum(y and not x for x, y in zip(*pair, strict=True)) for pair in pairs]
            tests = {
                "only the search right": ours,
                "only the other right": others,
                "McNemar p, uncorrected": [mcnemar(a, b) for a, b in zip(ours, others, strict=True)],
            }
            made.append(
                Record(
                    "metric",
                    f"auto less {name}/{column}",
                    gain.mean,
                    len(seeds),
                    gain.interval,
                    details=about | tests,
                )
            )
    made = _corrected(made)
    details = {**about, "values": chosen, "eps": 0.1}
    made.append(
        Record("metric", "eps_low in the last epoch", sum(chosen) / len(chosen), len(seeds), details=details)
    )
    return made


def _corrected(records: list[Record]) -> list[Record]:
    """The records, with each McNemar p by Holm over all of them beside it."""
    tested = [record for record in records if "McNemar p, uncorrected" in record.details]
    together = iter(holm([p for record in tested for p in record.details["McNemar p, uncorrected"]]))
    corrected = []
    for record in records:
        if record in tested:
            by_holm = [next(together) for _ in record.details["McNemar p, uncorrected"]]
            record = replace(record, details={**record.details, "McNemar p by Holm": by_holm})
        corrected.append(record)
    return corrected


if __name__ == "__main__":
    main()
