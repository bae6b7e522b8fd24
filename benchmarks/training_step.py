"""Adversarial training steps: the published way against ours, in one process.

    python benchmarks/training_step.py                  (2-core CPU: about ten minutes)
    python benchmarks/training_step.py --device cuda --compile

PGD-10 at 8/255 with step 2/255 on CIFAR ResNet-18, batch 128. Ours runs on the folded inference view in the
hardware's own precision; published is eager float32. The cost of the PART mask is timed by itself, since
differences of whole steps are noisier than it is.
"""

from functools import partial
from statistics import median

import published
import torch
from timing import alternate, arguments, keep, problem, ratio, seconds, timing
from torch import nn

from counterpart import devices
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import adversarial
from counterpart.seeding import Keys, seeded
from counterpart.training.loop import Phase, Settings, train_step

EAGER = {"precision": "float32", "compiled": False}
EPS, EPS_LOW, STEP, STEPS = 8 / 255, 7 / 255, 2 / 255, 10


def main() -> None:
    """Time, compare, keep."""
    parser = arguments(__doc__)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    given = parser.parse_args()

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

    theirs, their_optimizer = fresh()
    radius = torch.full((size, 3, 32, 32), EPS_LOW, device=device)
    works = {
        "published AT": lambda: published.at_step(theirs, their_optimizer, images, labels, EPS, STEP, STEPS),
        "published PART, masks given": lambda: published.part_step(
            theirs, their_optimizer, images, labels, radius, EPS, STEP, STEPS
        ),
    }

    model, optimizer = fresh()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = InferenceView(model, precision=precision, compile=given.compile)
    full = Linf(EPS)
    part = partial(rules.part, eps=EPS, eps_low=EPS_LOW)
    make = partial(adversarial, budget=full, steps=STEPS, step_size=STEP)
    objectives = {
        "ours AT": make(rule=partial(rules.constant, budget=full)),
        "ours PART": make(rule=part),
        "ours PART, clean map": make(rule=part, mask_from="clean"),
    }
    settings = Settings(size, 0, device, None, precision=precision, compile=given.compile)

    def step(objective: object) -> None:
        train_step(batch, size, 0, 0, model, view, Phase("at", 1, objective), optimizer, settings)
        view.refresh()

    works |= {name: partial(step, objective) for name, objective in objectives.items()}
    taken = alternate(works, device, given.repeats)

    # What the mask adds to a step: drawing it, and the tensor radius instead of a number in ten projections.
    keys = Keys(0, "train", batch.index)
    probe = view.probe(full.sample(images, keys))
    plane = part(probe, batch, keys)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)).to(device)
    repeats = 30
    drawing = [seconds(lambda: part(probe, batch, keys), device) for _ in range(repeats)]
    tensor = [seconds(lambda: plane.project(noise, images), device) for _ in range(repeats)]
    number = [seconds(lambda: full.project(noise, images), device) for _ in range(repeats)]
    own_pass = [seconds(lambda: view.probe(images), device) for _ in range(max(5, given.repeats))]
    at = median(taken["ours AT"])
    mask = median(drawing) + STEPS * (median(tensor) - median(number))

    setting = {
        "model": "resnet18", "width": given.width, "batch_size": size, "steps": STEPS, "device": device.type,
        "precision": precision, "compiled": given.compile, "threads": torch.get_num_threads(),
    }  # fmt: skip
    rows = [
        timing(f"training step/{name}", spent, size, **(setting if "ours" in name else setting | EAGER))
        for name, spent in taken.items()
    ]
    n = given.repeats
    rows += [
        ratio(
            "training step/ours AT over published AT",
            median(taken["published AT"]) / at,
            n,
            ">= 3",
            **setting,
        ),
        ratio(
            "training step/ours PART over published PART, its masks for free",
            median(taken["published PART, masks given"]) / median(taken["ours PART"]),
            n,
            ">= 3",
            **setting,
        ),
        ratio(
            "training step/mask, share of an AT step", mask / at, repeats, "<= 0.01", seconds=mask, **setting
        ),
        ratio(
            "training step/mask with its own clean pass, share of an AT step",
            (mask + median(own_pass)) / at,
            len(own_pass),
            "<= 0.05 (published: 0.76)",
            **setting,
        ),
    ]
    keep("training_step.jsonl", rows)


if __name__ == "__main__":
    main()
