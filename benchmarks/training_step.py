"""Adversarial training steps: the published way against ours, in one process.

    python benchmarks/training_step.py                        (2-core CPU: about half an hour)
    python benchmarks/training_step.py --methods trades       (or at, or mart, or several with commas)
    python benchmarks/training_step.py --device cuda --compile

PGD-10 at 8/255 with step 2/255 on CIFAR ResNet-18, batch 128. Ours runs on the folded inference view in the
hardware's own precision; published is eager float32. Published masks are given, so their cost is not in these steps.
The cost of our mask is timed by itself, since differences of whole steps are noisier than it is.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

import published
import torch
from timing import alternate, arguments, keep, problem, ratio, seconds, timing
from torch import nn

from counterpart import devices
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Objective
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import adversarial, mart, trades
from counterpart.records import Record
from counterpart.seeding import Keys, seeded
from counterpart.training.step import LoopOptions, Phase, Running, train_step
from counterpart.training.whole_step import WholeStep

EAGER = {"precision": "float32", "compiled": False}
EPS, EPS_LOW, STEP, STEPS, BETA, AWP = 8 / 255, 7 / 255, 2 / 255, 10, 6.0, 5e-3
PAIRS = {"at": ("AT", "PART"), "trades": ("TRADES", "PART-T"), "mart": ("MART", "PART-M")}


def main() -> None:
    """Time, compare, keep."""
    parser = arguments(__doc__)
    parser.add_argument("--methods", default=",".join(PAIRS))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    given = parser.parse_args()
    methods = given.methods.split(",")

    device, size = devices.resolve(given.device), given.batch_size
    precision = given.precision
    if precision == "auto":
        precision = "bf16" if devices.has_bf16(device) else "float32"
    images, labels = problem(size, device)
    batch = Batch(images, labels, torch.arange(size, device=device))

    def fresh() -> tuple[nn.Module, torch.optim.SGD]:
        with seeded(0):
            model = create("resnet18", 10, width=given.width).to(device)
        return model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)

    model, optimizer = fresh()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = InferenceView(model, precision=precision, form="fast")
    settings = LoopOptions(size, 0, device, None, precision=precision, compile=given.compile)

    def step_of(objective: Objective, awp: float = 0.0) -> Callable[[], object]:
        phase, options = Phase("at", 1, objective), replace(settings, awp=awp)
        running = Running(whole=WholeStep(phase, model, view, options) if given.compile else None)

        def step() -> None:
            train_step(batch, size, 0, 0, model, view, phase, optimizer, options, running)
            view.refresh()

        return step

    works: dict[str, Callable[[], object]] = {}
    for method in methods:
        base, part = PAIRS[method]
        theirs = their_steps(method, *fresh(), images, labels)
        ours = our_objectives(method)
        works |= {f"published {base}": theirs[0], f"published {part}, masks given": theirs[1]}
        works |= {f"ours {name}": step_of(objective) for name, objective in ours.items()}
        works[f"ours {base}, AWP"] = step_of(ours[base], AWP)
    taken = alternate(works, device, given.repeats)

    setting = {
        "model": "resnet18", "width": given.width, "batch_size": size, "steps": STEPS, "device": device.type,
        "precision": precision, "compiled": given.compile, "threads": torch.get_num_threads(),
    }  # fmt: skip
    rows = [
        timing(f"training step/{name}", spent, size, **(setting if "ours" in name else setting | EAGER))
        for name, spent in taken.items()
    ]
    compare = partial(ratio, n=given.repeats, **setting)
    middle = {name: median(spent) for name, spent in taken.items()}
    for method in methods:
        base, part = PAIRS[method]
        ours, theirs = middle[f"ours {base}"], middle[f"published {base}"]
        masked, their_masked = middle[f"ours {part}"], middle[f"published {part}, masks given"]
        awp = middle[f"ours {base}, AWP"] / ours - 1
        rows += [
            compare(f"training step/ours {base} over published {base}", theirs / ours, target=">= 3"),
            compare(
                f"training step/ours {part} over published {part}, its masks for free",
                their_masked / masked,
                target=">= 3",
            ),
            compare(f"training step/AWP, share of the {base} step", awp, target="<= 0.25"),
        ]
    if "at" in methods:
        rows += mask_rows(view, batch, middle["ours AT"], given.repeats, device, setting)
    keep("training_step.jsonl", rows)


def their_steps(
    method: str, model: nn.Module, optimizer: torch.optim.SGD, images: torch.Tensor, labels: torch.Tensor
) -> tuple[Callable[[], object], Callable[[], object]]:
    """The published step of a method, and of PART on it, with radii of the low budget."""
    radius = torch.full(images.shape, EPS_LOW, device=images.device)
    if method == "at":
        made = (model, optimizer, images, labels)
        return (
            partial(published.at_step, *made, EPS, STEP, STEPS),
            partial(published.part_step, *made, radius, EPS, STEP, STEPS),
        )
    step = published.trades_step if method == "trades" else published.mart_step
    make = partial(step, model, optimizer, images, labels, step_size=STEP, steps=STEPS, beta=BETA)
    return partial(make, radius=EPS), partial(make, radius=radius)


def our_objectives(method: str) -> dict[str, Objective]:
    """Our objective of a method, and PART on it, whose masks are its own."""
    base, part = PAIRS[method]
    full = Linf(EPS)
    constant = rules.constant
    masked = partial(rules.draw_budget, eps_low=EPS_LOW, mask=rules.Standardised())
    make = partial({"at": adversarial, "trades": trades, "mart": mart}[method], budget=full, steps=STEPS)
    make = partial(make, step_size=STEP, **({} if method == "at" else {"beta": BETA}))
    made = {base: make(rule=constant), part: make(rule=masked)}
    if method == "at":
        made["PART, clean map"] = make(rule=masked, drawn_from="clean")
    return made


def mask_rows(
    view: InferenceView,
    batch: Batch,
    at: float,
    repeats: int,
    device: torch.device,
    setting: dict[str, object],
) -> list[Record]:
    """What the mask adds to a step: drawing it, and the tensor radius instead of a number in ten projections."""
    images, full = batch.images, Linf(EPS)
    part = partial(rules.draw_budget, eps_low=EPS_LOW)
    keys = Keys(0, "train", batch.index)
    probe = view.probe(full.sample(images, keys))
    plane = part(probe, batch, keys, full)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)).to(device)
    times = 30
    drawing = [seconds(lambda: part(probe, batch, keys, full), device) for _ in range(times)]
    tensor = [seconds(lambda: plane.project(noise, images), device) for _ in range(times)]
    number = [seconds(lambda: full.project(noise, images), device) for _ in range(times)]
    own_pass = [seconds(lambda: view.probe(images), device) for _ in range(max(5, repeats))]
    mask = median(drawing) + STEPS * (median(tensor) - median(number))
    return [
        ratio(
            "training step/mask, share of an AT step", mask / at, times, "<= 0.01", seconds=mask, **setting
        ),
        ratio(
            "training step/mask with its own clean pass, share of an AT step",
            (mask + median(own_pass)) / at,
            len(own_pass),
            "<= 0.05 (published: 0.76)",
            **setting,
        ),
    ]


if __name__ == "__main__":
    main()
