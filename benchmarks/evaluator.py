"""The evaluator's memory by number of images, and an attack's cost by number of steps.

    python benchmarks/evaluator.py

Memory: peak resident memory of a process of its own that evaluates 1,000 or 10,000 images, above what it held once the
images and a first batch were there. Cost: seconds of APGD on one batch at 5, 10, 20 and 40 steps.
"""

import json
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import torch
from timing import arguments, keep, problem, ratio, seconds

from counterpart import devices
from counterpart.attacks import apgd
from counterpart.budget import Linf
from counterpart.contracts import NamedAttack
from counterpart.data.image_sets import ImageSet
from counterpart.evaluation import accuracy
from counterpart.evaluation.ledger import Ledger
from counterpart.models import create
from counterpart.models.inference import InferenceView
from counterpart.records import Record
from counterpart.seeding import Keys, seeded

SIZES, STEPS = (1000, 10_000), (5, 10, 20, 40)
EPS = 1e-3  # so small that hardly an image falls: the attack keeps its whole batch


def main() -> None:
    """Measure both and keep them."""
    parser = arguments(__doc__)
    parser.add_argument(
        "--images", type=int, help="the benchmark's own: evaluate so many and print the growth in MB"
    )
    parser.set_defaults(width=8)
    given = parser.parse_args()
    if given.images:
        print(json.dumps(grown(given.images, given.batch_size, given.width)))
        return
    device = devices.resolve(given.device)
    rows, peak = [], {}
    setting = {
        "model": "resnet18",
        "width": given.width,
        "batch_size": given.batch_size,
        "device": device.type,
    }
    for n in SIZES:
        words = [sys.executable, __file__, "--images", str(n), "--batch-size", str(given.batch_size)]
        done = subprocess.run(
            [*words, "--width", str(given.width)], capture_output=True, text=True, check=True
        )
        peak[n] = json.loads(done.stdout.splitlines()[-1])
        rows.append(
            Record("memory", f"evaluator/growth at {n} images", peak[n], 1, details={"unit": "MB", **setting})
        )
    rows.append(
        ratio(
            "evaluator/growth from 1,000 to 10,000 images, MB",
            peak[SIZES[1]] - peak[SIZES[0]],
            1,
            "about 0",
            **setting,
        )
    )

    images, _ = problem(given.batch_size, device)
    view = InferenceView(network(given.width).to(device))
    labels, keys = view(images).argmax(dim=1), Keys(0, "cost", torch.arange(len(images)))
    taken = {}
    for steps in STEPS:
        work = partial(apgd, view, images, labels, budget=Linf(EPS), keys=keys, steps=steps)
        work()
        taken[steps] = median(seconds(work, device) for _ in range(given.repeats))
        rows.append(
            Record(
                "timing",
                f"evaluator/apgd, {steps} steps",
                taken[steps],
                given.repeats,
                details={"unit": "s", **setting},
            )
        )
    passes = {steps: taken[steps] / (steps + 0.5) for steps in STEPS}  # the last pass has no gradient
    rows.append(
        ratio(
            "evaluator/seconds per step, 40 steps over 5",
            passes[40] / passes[5],
            given.repeats,
            "about 1",
            **setting,
        )
    )
    keep("evaluator.jsonl", rows)


def network(width: int) -> torch.nn.Module:
    """A small ResNet-18."""
    with seeded(0):
        return create("resnet18", 10, width=width).eval()


def grown(n: int, batch_size: int, width: int) -> float:
    """Peak memory in MB of an evaluation of ``n`` images, above that of its first batch."""
    model = network(width)
    pixels = torch.randint(256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = torch.cat(
            [model(part.float() / 255).argmax(dim=1) for part in torch.split(pixels, batch_size)]
        )
    images = ImageSet(
        "random", "test", tuple("0123456789"), labels, torch.arange(n), "0", (3, 32, 32), pixels
    )
    attacks = [NamedAttack("apgd", partial(apgd, steps=1), "apgd")]

    def run(some: ImageSet, folder: Path) -> float:
        accuracy.evaluate(
            model, InferenceView(model), some, attacks, budget_of=lambda _: Linf(0.1),
            ledger=Ledger(folder, accuracy.chunks_of(some, 500)),
            procedure=accuracy.Procedure(500, batch_size, torch.device("cpu"), seed=0),
        )  # fmt: skip
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    with tempfile.TemporaryDirectory() as folder:
        first = run(images.subset(torch.arange(500)), Path(folder) / "first")
        return run(images, Path(folder) / "all") - first


if __name__ == "__main__":
    main()
