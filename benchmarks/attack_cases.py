"""Generated cases for every attack: whether what it returns lies in the budget and in [0, 1], and is a number.

    python benchmarks/attack_cases.py --keep                                     (an hour on one core)
    python benchmarks/attack_cases.py --only fab --first 3117 --cases 1

A case is one call of an attack (``case_draws.py``): a small batch of small images under a small network, all drawn from
the seed, the attack's name and the case's number, so that each can be made again.

Whether an image is allowed is judged here once more, by the definition and in float64, besides ``budget.contains``.
"""

import argparse
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from case_draws import Case, as_computed, attacks, make_case
from timing import keep
from torch import Tensor

from counterpart.attacks.front_door import front_door
from counterpart.budget import L0, Ball, Budget, Linf
from counterpart.contracts import Attacked
from counterpart.records import Record
from counterpart.seeding import Keys

TOLERANCE = 1e-6  # of a radius, as the budgets promise
SHARES = {"autoattack": 0.01}  # of the cases that others get: its attacks take all of their steps
BAD = ("outside budget", "outside box", "not numbers", "other shapes", "errors")


@dataclass
class Counts:
    """What became of the cases of one attack.

    Attributes:
        cases: how many there were.
        images: how many images they held.
        moved: how many of these the attack changed.
        bad: the kinds of faults, and how many cases had one.
        first: the first case of each kind of fault.
        seconds: how long all of it took.
    """

    cases: int = 0
    images: int = 0
    moved: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def main() -> None:
    """Run the cases of every attack that is asked for, and keep the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000, help="of all attacks together, whichever run")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case of each attack")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="names of attacks, with commas between them")
    parser.add_argument("--keep", action="store_true", help="append the counts to results/attack_cases.jsonl")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bad = 0
    for name, cases in spread(given.cases, list(attacks())).items():
        if given.only and name not in given.only.split(","):
            continue
        row = as_record(name, run(name, range(given.first, given.first + cases), given.seed), given.seed)
        print(name, row.n, row.details, flush=True)
        bad += row.value
        if given.keep:
            keep("attack_cases.jsonl", [row])
    raise SystemExit(1 if bad else 0)


def spread(cases: int, names: Sequence[str]) -> dict[str, int]:
    """How many cases each attack gets: together at least as many as are asked for."""
    shares = {name: SHARES.get(name, 1.0) for name in names}
    return {name: math.ceil(cases * share / sum(shares.values())) for name, share in shares.items()}


def as_record(name: str, counts: Counts, seed: int) -> Record:
    """The record of the cases of an attack that went wrong."""
    details = {
        "unit": "faults", "target": "0", "images": counts.images, "moved": counts.moved,
        **{kind: counts.bad[kind] for kind in BAD}, "first": counts.first,
    }  # fmt: skip
    bad, seconds = sum(counts.bad.values()), round(counts.seconds, 1)
    return Record(
        "metric", f"attack cases/{name}", bad, counts.cases, seed=seed, details=details, seconds=seconds
    )


def run(name: str, numbers: range, seed: int) -> Counts:
    """Run cases of an attack, and count what came of them."""
    counts, attack = Counts(), attacks()[name]
    started = time.perf_counter()
    for number in numbers:
        case = make_case(name, random.Random(f"{seed} {name} {number}"))
        counts.cases += 1
        counts.images += len(case.images)
        faults, moved = faults_of(attack, case)
        counts.moved += moved
        for kind, words in faults.items():
            counts.bad[kind] += 1
            counts.first.setdefault(kind, f"case {number}: {words}"[:300])
    counts.seconds = time.perf_counter() - started
    return counts


def faults_of(attack: Callable[..., Attacked], case: Case) -> tuple[dict[str, str], int]:
    """What is wrong with the answer to a case, and how many images moved."""
    try:
        attacked = call(attack, case)
    except Exception as error:  # whatever comes is what this looks for
        return {"errors": f"{type(error).__name__}: {error}"}, 0
    faults = dict(judge(case, attacked))
    if "other shapes" in faults:
        return faults, 0
    return faults, int((attacked.images != as_computed(case.images)).flatten(1).any(dim=1).sum())


def call(attack: Callable[..., Attacked], case: Case) -> Attacked:
    """Attack the images of a case."""
    keys = Keys(7, "case", torch.arange(len(case.images)))
    called = front_door(attack) if case.at_the_door else attack
    return called(case.model, case.images, case.labels, budget=case.budget, keys=keys, **case.options)


def judge(case: Case, attacked: Attacked) -> Iterator[tuple[str, str]]:
    """What is wrong with an answer, by its kind, in words."""
    clean, images = as_computed(case.images), attacked.images
    if images.shape != clean.shape or images.dtype != clean.dtype:
        yield "other shapes", f"{images.dtype} {tuple(images.shape)} for {clean.dtype} {tuple(clean.shape)}"
        return
    for passes in (attacked.forwards, attacked.backwards):
        if passes.shape != clean.shape[:1] or bool((passes < 0).any()):
            yield "other shapes", f"passes {passes.tolist()} of {len(clean)} images"
    shown = [images] if attacked.nearest is None else [images, attacked.nearest]
    if not all(bool(part.isfinite().all()) for part in shown):
        yield "not numbers", "pixels that are NaN or infinite"
    if attacked.distances is not None and bool((attacked.distances.isnan() | (attacked.distances < 0)).any()):
        yield "not numbers", f"distances {attacked.distances.tolist()}"
    if not all(bool(((part >= 0) & (part <= 1)).all()) for part in shown):
        yield "outside box", f"pixels from {float(images.min())} to {float(images.max())}"
    within = allowed(case.budget, clean, images)
    if not within.all() or not bool(case.budget.contains(images, clean).all()):
        yield "outside budget", f"{case.budget.norm}, images {np.flatnonzero(~within).tolist()}"


def allowed(budget: Budget, clean: Tensor, images: Tensor) -> np.ndarray:
    """Whether each image lies in the budget, by the definition of its norm."""
    before, after = clean.double().numpy(), images.double().numpy()
    moved = np.abs(after - before)
    if isinstance(budget, Linf):
        radius = np.broadcast_to(shaped(budget.eps, clean), moved.shape)
        return bool_of_images(moved <= radius * (1 + TOLERANCE))
    if isinstance(budget, Ball):
        order = {"l2": 2, "l1": 1}[budget.norm]
        length = (moved**order).sum(axis=(1, 2, 3)) ** (1 / order)
        near = length <= shaped(budget.eps, clean).reshape(-1) * (1 + TOLERANCE)
        if budget.movable is None:
            return near
        frozen = np.broadcast_to(budget.movable.numpy() == 0, moved.shape)
        return near & bool_of_images((moved == 0) | ~frozen)
    places = [np.argwhere(change.any(axis=0)) for change in moved]
    if isinstance(budget, L0):
        return np.array([len(place) <= budget.pixels for place in places], bool)
    return np.array(
        [len(place) == 0 or np.ptp(place, axis=0).max() < budget.pixels for place in places], bool
    )


def shaped(eps: float | Tensor, clean: Tensor) -> np.ndarray:
    """Radii as the attack computes with them, in float64, in a shape that goes with images."""
    radius = torch.as_tensor(eps).to(clean.dtype).double().numpy()
    return radius.reshape(-1, 1, 1, 1) if radius.ndim < 4 else radius


def bool_of_images(pixels: np.ndarray) -> np.ndarray:
    """Whether all pixels of each image are true."""
    return pixels.reshape(len(pixels), pixels[0].size if len(pixels) else 0).all(axis=1)


if __name__ == "__main__":
    main()
