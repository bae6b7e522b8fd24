"""What a map adds to adversarial training, in time and memory: at the last layer, at inner ones, and by attention.

    python benchmarks/maps.py                            (2-core CPU: about twenty minutes)
    python benchmarks/maps.py --network vit
    python benchmarks/maps.py --device cuda --network vit

PGD-10 steps at 8/255 with step 2/255, 32 px. Time: whole steps in turn, and the mask by itself, since differences of
steps are noisier than it is. Memory: peak of a process of its own above what it held before its first step (on
CUDA, of allocated memory).
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from timing import alternate, arguments, keep, problem, ratio, seconds, timing

from counterpart import devices
from counterpart.batch import Batch
from counterpart.budget import Linf
from counterpart.importance import rules
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.objectives import adversarial
from counterpart.records import Record
from counterpart.seeding import Keys, seeded
from counterpart.training.loop import Phase, Settings, train_step

EPS, EPS_LOW, STEP, STEPS = 8 / 255, 7 / 255, 2 / 255, 10
AT = "AT"
# What the view shows, and the map that is drawn from it.
CASES = {
    "resnet18": {
        AT: ({}, None),
        "PART": ({}, "grad-cam"),
        "PART at layer3": ({"layer": "layer3"}, "grad-cam"),
        "PART at layer1": ({"layer": "layer1"}, "grad-cam"),
    },
    "vit": {
        AT: ({}, None),
        "PART at blocks.8": ({"layer": "blocks.8"}, "grad-cam"),
        "PART by attention-rollout": ({"attention": True}, "attention-rollout"),
        "PART by attention-gradient": ({"attention": True}, "attention-gradient"),
    },
}


def main() -> None:
    """Measure both and keep them."""
    parser = arguments(__doc__)
    parser.add_argument("--network", choices=list(CASES), default="resnet18")
    parser.add_argument("--only", help="the benchmark's own: train under one case and print the growth in MB")
    given = parser.parse_args()
    device, size = devices.resolve(given.device), given.batch_size
    precision = "bf16" if devices.has_bf16(device) else "float32"
    cases = CASES[given.network]

    def prepared(name: str) -> tuple[Callable[[], None], Callable[[], object]]:
        """A training step, and the drawing of its mask."""
        return case(given.network, name, given.width, size, device, precision)

    if given.only:
        print(json.dumps(growth(partial(prepared, given.only), device)))
        return
    ready = {name: prepared(name) for name in cases}
    taken = alternate({name: step for name, (step, _) in ready.items()}, device, given.repeats)
    setting = {
        "model": given.network, "width": given.width, "batch_size": size, "steps": STEPS, "device": device.type,
        "precision": precision, "threads": torch.get_num_threads(),
    }  # fmt: skip
    title = f"maps/{given.network}/"
    rows = [timing(f"{title}{name}", spent, size, **setting) for name, spent in taken.items()]
    at = median(taken[AT])
    memory = {name: grown(name, given) for name in cases}
    for name, (_, draw) in ready.items():
        if name == AT:
            continue
        draw()
        drawing = median(seconds(draw, device) for _ in range(5 * given.repeats))
        pairs = median(one / other for one, other in zip(taken[name], taken[AT], strict=True))
        more = memory[name] / memory[AT] - 1
        rows += [
            ratio(
                f"{title}{name}, whole step over AT's, less 1", pairs - 1, given.repeats, "<= 0.15", **setting
            ),
            ratio(
                f"{title}{name}, mask's share of an AT step",
                drawing / at,
                5 * given.repeats,
                "<= 0.15",
                **setting,
            ),
            ratio(f"{title}{name}, memory over AT's, less 1", more, 1, "<= 0.05", mb=memory[name], **setting),
        ]
    rows.append(Record("memory", f"{title}AT", memory[AT], 1, details={"unit": "MB", **setting}))
    keep("maps.jsonl", rows)


def case(
    network: str, name: str, width: int, size: int, device: torch.device, precision: str
) -> tuple[Callable[[], None], Callable[[], object]]:
    """A training step of a network under one of its cases, and the drawing of its mask from a probe."""
    shown, kind = CASES[network][name]
    images, labels = problem(size, device)
    batch = Batch(images, labels, torch.arange(size, device=device))
    with seeded(0):
        options = {"width": width} if network == "resnet18" else {"patch_size": 4}
        called = network if network == "resnet18" else "timm/vit_tiny_patch16_224"
        model = create(called, 10, **options).to(device)
    model.to(memory_format=devices.memory_format(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
    view = InferenceView(model, precision=precision, **shown)
    full = Linf(EPS)
    rule = partial(rules.constant, budget=full)
    if kind is not None:
        rule = partial(rules.part, eps=EPS, eps_low=EPS_LOW, kind=kind)
    phase = Phase(name, 1, adversarial(rule=rule, budget=full, steps=STEPS, step_size=STEP))
    settings = Settings(size, 0, device, None, precision=precision)

    def step() -> None:
        train_step(batch, size, 0, 0, model, view, phase, optimizer, settings)
        view.refresh()

    keys = Keys(0, "train", batch.index)
    probes: list[object] = []

    def draw() -> object:
        probes[:] = probes or [view.probe(images)]
        return rule(probes[0], batch, keys)

    return step, draw


def growth(prepare: Callable[[], tuple[Callable[[], None], object]], device: torch.device) -> float:
    """MB that training steps need at their peak, above what is held before the first."""
    step, _ = prepare()
    before = resident("VmRSS")
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device) / 2**20
    for _ in range(2):
        step()
    peak = resident("VmHWM")
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    return peak - before


def resident(field: str) -> float:
    """Resident memory of this process in MB, as Linux tells it: now, or at its peak since the program started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def grown(name: str, given: object) -> float:
    """``growth`` of one case in a process of its own."""
    options = {k.replace("_", "-"): v for k, v in vars(given).items() if k != "only"}
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    done = subprocess.run(
        [sys.executable, __file__, *words, "--only", name], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
