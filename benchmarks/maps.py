"""What a map adds to adversarial training, in time and memory: at the last layer, at inner ones, and by attention.

    python benchmarks/maps.py                            (2-core CPU: about twenty minutes)
    python benchmarks/maps.py --network vit
    python benchmarks/maps.py --device cuda --network vit
    python benchmarks/maps.py --network vit --what memory

PGD-10 steps at 8/255 with step 2/255, 32 px. Time: whole steps in turn, and the mask by itself, since differences of
steps are noisier than it is. Memory: peak of a process of its own above what it held before its first step (on
CUDA, of allocated memory; on a CPU freed memory goes back at once, or free lists of the allocator would count).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
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
from counterpart.training.step import LoopOptions, Phase, train_step

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
    parser.add_argument("--what", choices=["time", "memory", "both"], default="both")
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
    setting = {
        "model": given.network, "width": given.width, "batch_size": size, "steps": STEPS, "device": device.type,
        "precision": precision, "threads": torch.get_num_threads(),
    }  # fmt: skip
    title, rows = f"maps/{given.network}/", []
    if given.what != "memory":
        rows += times(title, {name: prepared(name) for name in cases}, device, given.repeats, setting)
    if given.what != "time":
        rows += memories(title, {name: grown(name, given) for name in cases}, setting)
    keep("maps.jsonl", rows)


def times(
    title: str,
    ready: Mapping[str, tuple[Callable[[], None], Callable[[], object]]],
    device: torch.device,
    repeats: int,
    setting: Mapping[str, object],
) -> list[Record]:
    """Whole steps in turn, and the drawing of each mask."""
    taken = alternate({name: step for name, (step, _) in ready.items()}, device, repeats)
    size = int(str(setting["batch_size"]))
    rows = [timing(f"{title}{name}", spent, size, **setting) for name, spent in taken.items()]
    at = median(taken[AT])
    for name, (_, draw) in ready.items():
        if name == AT:
            continue
        draw()
        drawing = median(seconds(draw, device) for _ in range(5 * repeats))
        pairs = median(one / other for one, other in zip(taken[name], taken[AT], strict=True))
        whole, share = (
            f"{title}{name}, whole step over AT's, less 1",
            f"{title}{name}, mask's share of an AT step",
        )
        rows += [
            ratio(whole, pairs - 1, repeats, "<= 0.15", **setting),
            ratio(share, drawing / at, 5 * repeats, "<= 0.15", **setting),
        ]
    return rows


def memories(title: str, memory: Mapping[str, float], setting: Mapping[str, object]) -> list[Record]:
    """MB of AT, and of the others beside it."""
    rows = [Record("memory", f"{title}AT", memory[AT], 1, details={"unit": "MB", **setting})]
    for name, mb in memory.items():
        if name != AT:
            title_of, more = f"{title}{name}, memory over AT's, less 1", mb / memory[AT] - 1
            rows.append(ratio(title_of, more, 1, "<= 0.05", mb=mb, **setting))
    return rows


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
    rule = rules.constant
    if kind is not None:
        mask = rules.Standardised(rules.MapSource(kind))
        rule = partial(rules.draw_budget, eps_low=EPS_LOW, mask=mask)
    phase = Phase(name, 1, adversarial(rule=rule, budget=full, steps=STEPS, step_size=STEP))
    settings = LoopOptions(size, 0, device, None, precision=precision)

    def step() -> None:
        train_step(batch, size, 0, 0, model, view, phase, optimizer, settings)
        view.refresh()

    keys = Keys(0, "train", batch.index)
    probes: list[object] = []

    def draw() -> object:
        probes[:] = probes or [view.probe(images)]
        return rule(probes[0], batch, keys, Linf(EPS))

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
    at_once = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}  # of glibc
    done = subprocess.run(
        [sys.executable, __file__, *words, "--only", name],
        capture_output=True, text=True, check=True, env={**os.environ, **at_once},
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
