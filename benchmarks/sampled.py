"""AutoAttack with the dear attacks on a sample of the survivors, beside the full run on the same images and model.

    python benchmarks/sampled.py mnist --data DIR --images 500 --samples 100,auto
    python benchmarks/sampled.py TARGET --data.root DIR --images 1500 --samples 60,auto

``mnist`` is the robust network of Wong et al. 2020 (arXiv 2001.03994) at l-infinity 0.3: DIR holds
``fast-adversarial-fgsm.pth`` and MNIST's ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``. TARGET is
what ``counterpart evaluate`` takes, at its own radius. All runs are in one process and on one thread, nothing is kept,
and time is that of the processor, so that other work beside does not count. A record says what an estimate came to,
whether its interval of these images holds what the full run finds, and how many times less time it took.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mnist_parity import EPS, mnist
from timing import keep, ratio

import counterpart
from counterpart.data.image_sets import balanced_subset
from counterpart.data.transforms import as_floats
from counterpart.jobs.targets import open_targets
from counterpart.models.published import load_published
from counterpart.records import Record


def main() -> None:
    """Evaluate in full and on samples, and keep what each says and costs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target")
    parser.add_argument(
        "--data", type=Path, help="the folder of MNIST's test images and the network's weights"
    )
    parser.add_argument("--data.root", dest="root", type=Path, help="the data of TARGET")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--samples", default="100,auto")
    parser.add_argument("--width", type=float, default=0.02, help="what auto aims at")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    model, data, eps, name = problem(given)
    asked = {
        "attacks": "autoattack", "eps": eps, "seed": given.seed, "device": "cpu",
        "changes": {"threads": 1, "evaluate.batch_size": 500, "evaluate.sampled_width": given.width},
    }  # fmt: skip
    full, seconds = judge(model, data, asked)
    setting = {"model": name, "eps": eps, "threads": 1}
    lines = {line.name: line.value for line in full.values()}
    rows = [
        Record(
            "timing", f"sampled/{name}, the full run", seconds, 1, seed=given.seed,
            details={"unit": "s", "images": full.n, **setting, "accuracies": lines},
        )
    ]  # fmt: skip
    print(f"{rows[0].name}: {seconds:.0f} s", full, sep="\n", flush=True)
    for count in given.samples.split(","):
        judged, taken = judge(model, data, asked, sampled=count)
        print(f"{count}: {taken:.0f} s", judged, sep="\n", flush=True)
        rows.append(compared(count, judged, full, seconds / taken, {**setting, "seconds": taken}))
    keep("sampled.jsonl", rows)


def problem(
    given: argparse.Namespace,
) -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor], float, str]:
    """The model, its images with their labels, the radius, and a name for the records."""
    if given.target == "mnist":
        model, _ = load_published("mnist-cnn", given.data / "fast-adversarial-fgsm.pth")
        images, eps, name = mnist(given.data), EPS, "mnist"
    else:
        settings = {"data": {"root": str(given.root)}, "device": "cpu", "threads": 1}
        target = next(open_targets(given.target, settings))
        model, images, eps = target.model, target.images, target.config.attack.eps
        name = f"{target.config.data.name} {target.config.model.name}"
    chosen = balanced_subset(images, given.images, seed=0)
    return model, (as_floats(chosen.read(torch.arange(len(chosen)))), chosen.labels), eps, name


def judge(
    model: torch.nn.Module, data: Any, asked: Mapping[str, Any], sampled: str | None = None
) -> tuple[Any, float]:
    """The judgement, and the seconds of the processor that it took."""
    changes = dict(asked["changes"])
    if sampled != "auto":  # the width has no effect on others
        changes.pop("evaluate.sampled_width")
    started = time.process_time()
    judged = counterpart.evaluate(model, data, **{**asked, "changes": changes}, sampled=sampled)
    return judged, time.process_time() - started


def compared(count: str, judged: Any, full: Any, factor: float, setting: Mapping[str, Any]) -> Record:
    """What a sample said of the worst case, beside the full run, and how many times less time it took."""
    worst, truth = judged["worst case"], full["worst case"]
    [record] = [record for record in judged.records if record.name == "accuracy/worst case"]
    details = {
        **setting, **record.details.get("estimate", {}), "images": judged.n,
        "estimated": worst.value, "of_population": [worst.low, worst.high],
        "full": truth.value, "full_interval": [truth.low, truth.high],
        "doubts": [doubt.name for doubt in judged.doubts],
    }  # fmt: skip
    if worst.of_these_images is not None:
        low, high = worst.of_these_images
        details["holds"] = low <= truth.value <= high
    return ratio(f"sampled/{setting['model']}, {count} survivors, times faster", factor, 1, "", **details)


if __name__ == "__main__":
    main()
