"""APGD, FAB and Square against the published package, attack by attack, on a robust model of yours.

    python benchmarks/parity.py TARGET --data.root DIR --images 200 --seeds 0,1,2

TARGET is what counterpart evaluate takes. Each line of AutoAttack meets all images that the model gets right, by
both engines and with every seed; a record says how many images each leaves, how much the published package differs
from itself over its seeds, and ours from it, in either direction. ``--norm l1 --eps 12`` asks in another norm.
``--scale`` shortens steps and queries of both sides alike. Needs the extra bench. Pairs that are finished are kept in
``--work``, so that a benchmark that was stopped goes on.
"""

import argparse
import json
import time
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from statistics import mean

import torch
from autoattack import EPS, package, scaled
from timing import keep, ratio

from counterpart import devices
from counterpart.attacks.auto_attack import suite
from counterpart.batch import Batch
from counterpart.budget import NORMS, Linf
from counterpart.budget.balls import Ball
from counterpart.data.image_sets import balanced_subset
from counterpart.evaluation.answers import judge, logits_of
from counterpart.evaluation.batches import read_batch
from counterpart.jobs.targets import open_targets
from counterpart.models.inference import InferenceView
from counterpart.rundir import write_atomically
from counterpart.seeding import Keys

LINES = ("apgd-ce", "apgd-t", "fab-t", "square")


def main() -> None:
    """Attack with both engines and every seed, line by line, and compare what is left."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target")
    parser.add_argument("--data.root", dest="root", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--lines", default=",".join(LINES))
    parser.add_argument("--norm", choices=NORMS, default="linf")
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), default=EPS)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()

    target = next(
        open_targets(given.target, {"data": {"root": given.root}, "device": "cpu", "threads": given.threads})
    )
    images = balanced_subset(target.images, given.images, seed=0)
    batch = read_batch(images, torch.arange(len(images)), target.device)
    batch = batch.select(logits_of(target.model, batch.images).argmax(dim=1) == batch.labels)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    for line in given.lines.split(","):
        left: dict[tuple[str, int], set[int]] = {}
        for seed, engine in product(seeds, ("official", "counterpart")):
            budget = NORMS[given.norm](given.eps)
            file = given.work / f"{line}-{engine}-{seed}-{given.images}-{given.scale:g}.json"
            if given.norm != "linf" or given.eps != EPS:
                file = file.with_stem(f"{file.stem}-{given.norm}-{given.eps:g}")
            if not file.exists():
                started = time.perf_counter()
                with devices.exact_float32():
                    kept = survivors(target.model, batch, budget, line, engine, seed, given.scale)
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, lambda path, kept=kept: path.write_text(json.dumps(sorted(kept))))
                print(f"{file.stem}: {len(kept)} left, {time.perf_counter() - started:.0f} s", flush=True)
            left[engine, seed] = set(json.loads(file.read_text()))
        itself = [left["official", a] ^ left["official", b] for a, b in combinations(seeds, 2)]
        only_ours = [len(left["counterpart", s] - left["official", s]) for s in seeds]
        only_theirs = [len(left["official", s] - left["counterpart", s]) for s in seeds]
        apart = mean(map(int.__add__, only_ours, only_theirs))
        record = ratio(
            f"parity/{line}, images that differ from the published package", apart, len(batch),
            "no more than it from itself, in no direction", from_itself=mean(map(len, itself)),
            left_by_ours_alone=only_ours, left_by_official_alone=only_theirs,
            left={f"{engine} {seed}": len(rows) for (engine, seed), rows in left.items()},
            model=target.config.model.name, data=images.name, norm=given.norm, eps=given.eps, scale=given.scale,
        )  # fmt: skip
        keep("parity.jsonl", [record])


def survivors(
    model: torch.nn.Module, batch: Batch, budget: Ball | Linf, line: str, engine: str, seed: int, scale: float
) -> set[int]:
    """Data-set indices of the images that stand."""
    if engine == "official":
        eps = float(budget.eps)
        runner = package(model, seed, scale, batch.images.device, budget.norm, eps)
        runner.attacks_to_run = [line]
        attacked, _ = runner.run_standard_evaluation(batch.images, batch.labels, batch_size=len(batch))
        fooled, _ = judge(model, attacked, batch.images, batch.labels, budget)
        return set(batch.index[~fooled].tolist())
    view, standing = InferenceView(model), batch
    for named in suite("standard", budget.norm, 10):
        if named.line != line:
            continue
        keys = Keys(seed, named.name, standing.index)
        attacked = scaled(named, scale).attack(
            view, standing.images, standing.labels, budget=budget, keys=keys
        )
        fooled, _ = judge(model, attacked.images, standing.images, standing.labels, budget)
        standing = standing.select(~fooled)
    return set(standing.index.tolist())


if __name__ == "__main__":
    main()
