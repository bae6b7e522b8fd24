"""What ``train.compile`` brings: a training step that is compiled as a whole against the same step as it is.

    python benchmarks/compiled_step.py --width 16 --batch-size 64 --steps 3      (2-core CPU: some minutes)
    python benchmarks/compiled_step.py --device cuda

AT and PART at 8/255 on CIFAR ResNet-18, in one process and in turn. On a CPU the seconds are those of the processor,
so that other work on the machine counts for little. What compiling takes, by the clock, is a record of its own.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from timing import arguments, keep, problem, ratio, seconds, timing

from counterpart import devices
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.contracts import Rule
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import adversarial
from counterpart.records import Record
from counterpart.seeding import seeded
from counterpart.training.meter import Meter
from counterpart.training.optimizers import sgd
from counterpart.training.step import LoopOptions, Phase, Running, train_step
from counterpart.training.whole_step import WholeStep

EPS, EPS_LOW, STEP = 8 / 255, 7 / 255, 2 / 255
RULES: dict[str, Rule] = {
    "AT": rules.constant,
    "PART": partial(rules.draw_budget, eps_low=EPS_LOW, mask=rules.Standardised()),
}


def main() -> None:
    """Time, compare, keep."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=10, help="steps of the attack")
    parser.add_argument("--methods", default=",".join(RULES))
    given = parser.parse_args()
    device, size = devices.resolve(given.device, threads=1), given.batch_size
    images, labels = problem(size, device)
    batch = Batch(images, labels, torch.arange(size, device=device))
    measure = seconds if device.type == "cuda" else processor_seconds
    setting = {
        "model": "resnet18", "width": given.width, "batch_size": size, "steps": given.steps, "device": device.type,
        "precision": "float32", "threads": torch.get_num_threads(),
        "seconds": "of the clock" if device.type == "cuda" else "of the processor",
    }  # fmt: skip
    rows: list[Record] = []
    for method in given.methods.split(","):
        rule = RULES[method]
        objective = adversarial(budget=Linf(EPS), rule=rule, steps=given.steps, step_size=STEP)
        works = {
            name: step_of(Phase("at", 1, objective), batch, given.width, name)
            for name in ("eager", "compiled")
        }
        first = {name: seconds(work, device) for name, work in works.items()}
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(1 + given.repeats):
            for name, work in works.items():
                taken[name].append(measure(work, device))
        middle = {name: median(spent[1:]) for name, spent in taken.items()}
        rows += [
            timing(f"compiled step/{method}, {name}", spent[1:], size, **setting)
            for name, spent in taken.items()
        ]
        compare = partial(ratio, n=given.repeats, **setting)
        rows += [
            compare(
                f"compiled step/{method}, compiled over eager",
                middle["eager"] / middle["compiled"],
                target="",
            ),
            ratio(
                f"compiled step/{method}, seconds to compile",
                first["compiled"] - first["eager"],
                1,
                "",
                **{**setting, "seconds": "of the clock"},
            ),
        ]
    keep("compiled_step.jsonl", rows)


def step_of(phase: Phase, batch: Batch, width: int, name: str) -> Callable[[], object]:
    """A training step on a network of its own, which is compiled at its first call where ``name`` says so."""
    device, size = batch.images.device, len(batch)
    with seeded(0):
        model = create("resnet18", 10, width=width).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = InferenceView(model, form="fast")
    options = LoopOptions(size, 0, device, None, compile=name == "compiled", read_every=20)
    optimizer = sgd(
        model, lr=0.01, momentum=0.9, nesterov=False, fused=True, weight_decay=2e-4, decay_norm=True
    )
    whole = WholeStep(phase, model, view, options) if options.compile else None
    running = Running(Meter(options.read_every), whole)

    def step() -> None:
        train_step(batch, size, 0, 0, model, view, phase, optimizer, options, running)
        view.refresh()
        if whole is not None and whole.reason is not None:
            raise RuntimeError(whole.reason)

    return step


def processor_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the processor that one call takes, in all threads of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
