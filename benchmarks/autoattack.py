"""AutoAttack standard: the published package against ours, on the same images of the same model, in one process.

    python benchmarks/autoattack.py TARGET --data.root DIR             (256 images: hours on a 2-core CPU)
    python benchmarks/autoattack.py TARGET --data.root DIR --images 32 --scale 0.1

TARGET is what counterpart evaluate takes, such as the run folder of an adversarially trained ResNet-18. Needs the extra
bench. ``--scale`` shortens steps and queries of both sides alike: cost is linear in them, so factors keep their
meaning; accuracies are then no AutoAttack, and the records say so.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from timing import keep, ratio, seconds
from torch import Tensor

from counterpart import devices
from counterpart.attacks import apgd, fab, square
from counterpart.attacks.auto_attack import finish, suite
from counterpart.attacks.official import NORMS
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import NamedAttack
from counterpart.data.image_sets import ImageSet, balanced_subset
from counterpart.errors import UserError
from counterpart.evaluation import accuracy
from counterpart.evaluation.answers import logits_of
from counterpart.evaluation.batches import read_batch
from counterpart.evaluation.ledger import Ledger
from counterpart.jobs.targets import open_targets
from counterpart.models.inference import InferenceView
from counterpart.records import Record
from counterpart.seeding import Keys

EPS = 8 / 255
STEPS, QUERIES = 100, 5000
DEAR = ("fab-t", "square")
SAMPLE, SURVIVORS = 500, 4900  # of 10,000 images, of which a robust network leaves about this many


def main() -> None:
    """Run both, compare, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target")
    parser.add_argument("--data.root", dest="root", required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--processor", action="store_true", help="seconds of the processor, for a busy machine"
    )
    parser.add_argument("--skip-official", action="store_true", help="ours alone")
    given = parser.parse_args()

    clock = time.process_time if given.processor else time.perf_counter
    changes = {"data": {"root": given.root}, "device": given.device, "threads": given.threads}
    target = next(open_targets(given.target, changes))
    images = balanced_subset(target.images, given.images, seed=0)
    batch = read_batch(images, torch.arange(len(images)), target.device)
    right = logits_of(target.model, batch.images).argmax(dim=1) == batch.labels
    setting = {
        "model": target.config.model.name,
        "images": len(images),
        "norm": "linf",
        "eps": EPS,
        "scale": given.scale,
        "batch_size": given.batch_size,
        "device": target.device.type,
        "threads": torch.get_num_threads(),
        "clock": "processor" if given.processor else "wall",
    }
    for parameter in target.model.parameters():
        parameter.requires_grad_(True)  # as a user hands a model to the package

    spent: dict[str, dict[str, float]] = {"float32": {}, "bf16": {}}
    runs: dict[str, Callable[[], Tensor]] = {
        f"ours {precision}": partial(
            ours, target.model, images, target.device, precision, given, clock, spent[precision]
        )
        for precision in spent
    }
    if not given.skip_official:
        runs["official"] = partial(official, target.model, batch, given)
    rows, took, robust = [], {}, {}
    with devices.exact_float32():
        for name, run in runs.items():
            started = clock()
            standing = run()
            took[name] = clock() - started
            robust[name] = standing
            rows.append(
                Record(
                    "timing",
                    f"autoattack/{name}",
                    took[name],
                    1,
                    seed=given.seed,
                    details={
                        "unit": "s",
                        "robust": float(standing.float().mean()),
                        "clean": float(right.float().mean()),
                        **setting,
                    },
                )
            )
            print(f"{name}: {took[name]:.1f} s, robust {int(standing.sum())} of {len(images)}", flush=True)
    if "official" in took:
        for precision, aim in (("float32", ">= 1.4"), ("bf16", ">= 3")):
            name = f"ours {precision}"
            apart = int((robust[name] ^ robust["official"]).sum())
            rows.append(
                ratio(
                    f"autoattack/{name}, times faster than official",
                    took["official"] / took[name],
                    1,
                    aim,
                    differ=apart,
                    **setting,
                )
            )
    rows += sampled(spent, took, setting)
    rows += parts(target.model, batch, target.device, given.batch_size, setting)
    keep("autoattack.jsonl", rows)


def ours(
    model: torch.nn.Module,
    images: ImageSet,
    device: torch.device,
    precision: str,
    given: argparse.Namespace,
    clock: Callable[[], float],
    spent: dict[str, float],
) -> Tensor:
    """Which images stand after our AutoAttack, through the evaluator and its ledger as a user has them.

    What each line of attacks takes is added to ``spent``.
    """
    view = InferenceView(model, precision=precision)
    attacks = [scaled(one, given.scale) for one in suite("standard", "linf", 10)]
    if precision == "bf16":
        attacks += [scaled(one, given.scale) for one in finish(InferenceView(model), "linf", 10)]
    attacks = [timed(one, clock, spent) for one in attacks]
    procedure = accuracy.Procedure(len(images), given.batch_size, device, given.seed, save_images=False)
    with TemporaryDirectory() as folder:
        rows = accuracy.evaluate(
            model, view, images, attacks, budget_of=lambda _: Linf(EPS), ledger=Ledger(Path(folder), 1),
            procedure=procedure,
        )  # fmt: skip
    return torch.tensor([row.fooled_by == "" for row in rows], device=device)


def timed(one: NamedAttack, clock: Callable[[], float], spent: dict[str, float]) -> NamedAttack:
    """The attack, which adds the seconds that it takes to those of its line."""

    def attack(*arguments: Any, **options: Any) -> Any:
        started = clock()
        try:
            return one.attack(*arguments, **options)
        finally:
            spent[one.line] = spent.get(one.line, 0.0) + clock() - started

    return NamedAttack(one.name, attack, one.line)


def sampled(
    spent: dict[str, dict[str, float]], took: dict[str, float], setting: dict[str, object]
) -> list[Record]:
    """What trying FAB and Square on 500 of 4,900 survivors would save: arithmetic on what each line took."""
    rows = []
    for precision, seconds_of in spent.items():
        whole = took[f"ours {precision}"]
        dear = sum(seconds_of.get(line, 0.0) for line in DEAR)
        share = 1 - dear / whole  # of the cheap attacks and of everything beside attacks
        factor = 1 / (share + (1 - share) * SAMPLE / SURVIVORS)
        details = {**setting, "arithmetic": True, "share_of_the_cheap": share, "seconds": seconds_of}
        name = f"autoattack/ours {precision}, {SAMPLE} of {SURVIVORS} survivors, times faster than in full"
        rows.append(ratio(name, factor, 1, ">= 3.4", **details))
        if "official" in took:
            faster = took["official"] / whole * factor
            name = (
                f"autoattack/ours {precision}, {SAMPLE} of {SURVIVORS} survivors, times faster than official"
            )
            rows.append(ratio(name, faster, 1, ">= 5", **details))
    return rows


def scaled(one: NamedAttack, scale: float) -> NamedAttack:
    """The attack with a share of its steps or queries."""
    if scale == 1:
        return one
    option = {"queries": round(scale * QUERIES)} if one.line == "square" else {"steps": round(scale * STEPS)}
    return NamedAttack(one.name, partial(one.attack, **option), one.line)


def official(model: torch.nn.Module, batch: Batch, given: argparse.Namespace) -> Tensor:
    """Which images stand after the published package."""
    runner = package(model, given.seed, given.scale, batch.images.device)
    attacked, _ = runner.run_standard_evaluation(batch.images, batch.labels, batch_size=given.batch_size)
    return logits_of(model, attacked).argmax(dim=1) == batch.labels


def package(
    model: torch.nn.Module,
    seed: int,
    scale: float,
    device: torch.device,
    norm: str = "linf",
    eps: float = EPS,
) -> Any:
    """The published package's AutoAttack standard, with a share of its steps and queries."""
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise UserError("needs the published package: pip install '.[bench]'") from None
    runner = AutoAttack(model, norm=NORMS[norm], eps=eps, seed=seed, version="standard", device=device)
    runner.apgd.n_iter = runner.apgd_targeted.n_iter = runner.fab.n_iter = round(scale * STEPS)
    runner.apgd.n_iter_orig = runner.apgd_targeted.n_iter_orig = runner.apgd.n_iter
    runner.square.n_queries = round(scale * QUERIES)
    return runner


def parts(
    model: torch.nn.Module, batch: Batch, device: torch.device, size: int, setting: dict[str, object]
) -> list[Record]:
    """Where the factor comes from: one forward, and one forward and backward pass, of a batch, each way."""
    images, labels = batch.images[:size], batch.labels[:size]

    def forward(view: Callable[[Tensor], Tensor]) -> None:
        with torch.no_grad():
            view(images)

    def gradient(view: Callable[[Tensor], Tensor], parameters: bool) -> None:
        leaf = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(view(leaf), labels)
        loss.backward() if parameters else torch.autograd.grad(loss, leaf)

    folded, short = InferenceView(model), InferenceView(model, precision="bf16")
    ways = {
        "forward, eager": partial(forward, model),
        "forward, folded": partial(forward, folded),
        "forward, folded, bf16": partial(forward, short),
        "gradient, eager, parameters too": partial(gradient, model, True),
        "gradient, eager": partial(gradient, model, False),
        "gradient, folded": partial(gradient, folded, False),
        "gradient, folded, bf16": partial(gradient, short, False),
    }
    rows, cost = [], {}
    for name, work in ways.items():
        work()
        cost[name] = median(seconds(work, device) for _ in range(5))
        details = {"unit": "images/s", **setting}
        rows.append(Record("timing", f"autoattack pass/{name}", len(images) / cost[name], 5, details=details))

    # What an attack adds to the passes: a step with a model that costs nothing, as a share of its real passes.
    zeros, places = torch.zeros_like(labels), torch.arange(len(labels), device=device)
    keys = Keys(0, "overhead", places)
    passes = {
        "apgd": (partial(apgd, steps=5), 5, cost["gradient, folded, bf16"]),
        "fab": (
            partial(fab, steps=5, target=1),
            5,
            cost["gradient, folded, bf16"] + cost["forward, folded, bf16"],
        ),
        "square": (partial(square, queries=10), 10, cost["forward, folded, bf16"]),
    }
    for name, (attack, steps, real) in passes.items():
        free = partial(attack, stand_in, images, zeros, budget=Linf(EPS), keys=keys)
        free()
        share = median(seconds(free, device) for _ in range(5)) / steps / real
        rows.append(
            ratio(f"autoattack overhead/{name}, share of a step in bf16", share, 5, "<= 0.05", **setting)
        )
    return rows


def stand_in(images: Tensor) -> Tensor:
    """Ten logits that nothing fools, at hardly any cost."""
    first = images[:, 0, 0, :10]
    answer = torch.zeros_like(first)
    answer[:, 0] = 1
    return first * 1e-9 + answer


if __name__ == "__main__":
    main()
