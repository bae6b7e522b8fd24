"""Timing that alternates between the things compared, so that drift of the machine hits both."""

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from counterpart import records
from counterpart.records import Record

RESULTS = Path(__file__).parents[1] / "results"


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def problem(size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random CIFAR-sized images and their labels, the same in every benchmark."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(size, 3, 32, 32, generator=generator).to(device)
    return images, torch.randint(10, (size,), generator=generator).to(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, device work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def alternate(
    works: Mapping[str, Callable[[], object]], device: torch.device, repeats: int, warmups: int = 1
) -> dict[str, list[float]]:
    """Seconds of each of ``works``, called in turn, ``repeats`` times."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warmups + repeats):
        for name, work in works.items():
            spent = seconds(work, device)
            if turn >= warmups:
                taken[name].append(spent)
    return taken


def timing(name: str, taken: list[float], images: int, **details: object) -> Record:
    """A record of images per second at the median; the interval spans the fastest and slowest call."""
    rate = images / median(taken)
    interval = (images / max(taken), images / min(taken))
    return Record("timing", name, rate, len(taken), interval, details={"unit": "images/s", **details})


def ratio(name: str, value: float, n: int, target: str, **details: object) -> Record:
    """A record of a factor or share, with what was aimed at."""
    return Record("timing", name, value, n, details={"target": target, **details})


def keep(file: str, rows: list[Record]) -> None:
    """Print records and append them to ``results/``, absolute paths in the command cut to their last part."""
    for row in rows:
        unit = row.details.get("unit", "")
        print(f"{row.name:<55} {row.value:>12.5g} {unit:<9} {row.details.get('target', '')}")
    command = shortened(records.environment()["command"])
    records.write(RESULTS / file, [replace(row, provenance={"command": command}) for row in rows])
    print(f"Kept in results/{file}")


def shortened(command: str) -> str:
    """A command without the folders of the machine that it ran on."""
    words = command.split()
    return " ".join(f".../{Path(word).name}" if Path(word).is_absolute() else word for word in words)
