"""What one step in place of ten saves: a training step of AT and of PART by N-FGSM against the same by PGD-10.

    python benchmarks/single_step.py --width 16 --batch-size 64 --repeats 15      (2-core CPU: some minutes)
    python benchmarks/single_step.py --device cuda

At 8/255 on CIFAR ResNet-18, in one process and in turn. On a CPU the seconds are those of the processor, so that other
work on the machine counts for little. What it costs in accuracy is the experiment ``pixel/single-step``.
"""

from functools import partial
from statistics import median

import torch
from compiled_step import EPS, RULES, STEP, processor_seconds, step_of
from timing import arguments, keep, problem, ratio, seconds, timing

from counterpart import devices
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.objectives import adversarial, n_fgsm
from counterpart.training.step import Phase

STEPS = 10


def main() -> None:
    """Time, compare, keep."""
    given = arguments(__doc__).parse_args()
    device, size = devices.resolve(given.device, threads=1), given.batch_size
    images, labels = problem(size, device)
    batch = Batch(images, labels, torch.arange(size, device=device))
    on_cuda = device.type == "cuda"
    measure = seconds if on_cuda else processor_seconds
    setting = {
        "model": "resnet18", "width": given.width, "batch_size": size, "device": device.type, "precision": "float32",
        "threads": torch.get_num_threads(), "seconds": "of the clock" if on_cuda else "of the processor",
    }  # fmt: skip
    objectives = {}
    for method, rule in RULES.items():
        objectives[f"{method} PGD-{STEPS}"] = adversarial(
            budget=Linf(EPS), rule=rule, steps=STEPS, step_size=STEP
        )
        objectives[f"{method} N-FGSM"] = n_fgsm(budget=Linf(EPS), rule=rule)
    works = {
        name: step_of(Phase("at", 1, objective), batch, given.width, "eager")
        for name, objective in objectives.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(1 + given.repeats):
        for name, work in works.items():
            spent = measure(work, device)
            if turn > 0:  # the first call of each warms up
                taken[name].append(spent)
    rows = [timing(f"single step/{name}", spent, size, **setting) for name, spent in taken.items()]
    compare = partial(ratio, n=given.repeats, target="", **setting)
    for method in RULES:
        factor = median(taken[f"{method} PGD-{STEPS}"]) / median(taken[f"{method} N-FGSM"])
        rows.append(compare(f"single step/{method}, N-FGSM over PGD-{STEPS}", factor))
    keep("single_step.jsonl", rows)


if __name__ == "__main__":
    main()
