"""Generated records, units of a ledger and checkpoints: each has to be read as it was written, bit for bit.

    python benchmarks/round_trips.py --cases 10000      (a few minutes)

Values are drawn from a seed: numbers at the ends of their ranges, texts of every alphabet, columns of no entry, tensors
of every type, without entries or dimensions, in other layouts than their own.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from fault_bits import same
from timing import keep
from torch import Tensor, nn

from counterpart import records
from counterpart.evaluation.ledger import Ledger, Unit
from counterpart.records import Record
from counterpart.training import checkpoint

TEXTS = (
    "",
    "a",
    "PGD-20",
    "β ≥ 0,5",
    "名前",
    "\u2028",
    '"\\"',
    "a\nb",
    "\t\0",
    "🙂",
    "checksum",
    "0" * 64,
    "\ud7ff",
)
NUMBERS = (0, 1, -1, 0.1, -0.0, 1e-320, 1.7e308, 2**53 + 1, 2**63 - 1, 1 / 3)
TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip


def main() -> None:
    """Write and read every kind of value, and keep the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rows = [run(name, range(given.cases), given.seed) for name in TRIPS]
    keep("attack_cases.jsonl", rows)
    raise SystemExit(1 if any(row.value for row in rows) else 0)


def run(name: str, numbers: range, seed: int) -> Record:
    """Write and read values of a kind; the record of those that came back otherwise, or not at all."""
    bad, first = 0, ""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            try:
                fault = TRIPS[name](Path(folder), random.Random(f"{seed} {name} {number}"))
            except Exception as error:  # whatever comes is what this looks for
                fault = f"{type(error).__name__}: {error}"
            bad += fault != ""
            first = first or (f"case {number}: {fault}"[:300] if fault else "")
    details = {"unit": "faults", "target": "0", "first": first}
    seconds = round(time.perf_counter() - started, 1)
    return Record(
        "metric", f"round trips/{name}", bad, len(numbers), seed=seed, details=details, seconds=seconds
    )


def of_record(folder: Path, draws: random.Random) -> str:
    """Write records into a new file, and read them."""
    path = folder / "records.jsonl"
    path.unlink(missing_ok=True)
    written = [draw_record(draws) for _ in range(draws.randint(1, 3))]
    records.write(path, written)
    there = [replace(record, provenance={}) for record in records.read(path)]
    return "" if same([asdict(row) for row in there], [asdict(row) for row in written]) else str(written)


def of_unit(folder: Path, draws: random.Random) -> str:
    """Commit a unit of a ledger with its images, and read both."""
    ledger, name, chunk = (
        Ledger(folder, 1),
        draws.choice(("clean", "PGD-20", "a/b ../c", "é")),
        draws.randrange(3),
    )
    unit = draw_unit(draws)
    images = draw_tensor(draws, (len(unit.with_images), 1, 2, 3), torch.float32)
    ledger.commit(name, chunk, unit, images)
    if not same(vars(ledger.read(name, chunk)), vars(unit)):
        return f"{unit}"
    if unit.with_images and not same(ledger.images(name, chunk), (images, unit.with_images)):
        return f"the images of {unit}"
    return ""


def of_checkpoint(folder: Path, draws: random.Random) -> str:
    """Write tensors and a header as a checkpoint, and read both."""
    about = {draws.choice(TEXTS) or "name": draw_value(draws, 2) for _ in range(3)}
    model = nn.Module()
    for number in range(draws.randint(1, 4)):
        shape = tuple(draws.choice((0, 1, 2, 5)) for _ in range(draws.randint(0, 4)))
        tensor = draw_tensor(draws, shape, draws.choice(TYPES))
        model.register_buffer(f"b{number}", tensor.transpose(0, -1) if tensor.ndim else tensor)
    path = folder / "last.safetensors"
    checkpoint.save_weights(path, model, about)
    tensors, header = checkpoint.read(path)
    whole = same(header, about) and same(bits(tensors), bits(model.state_dict()))
    return "" if whole else f"{about}, {model.state_dict()}"


def bits(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The types, shapes and bytes of tensors by their names."""
    return {
        name: (str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8))
        for name, tensor in sorted(tensors.items())
    }


TRIPS: Mapping[str, Callable[[Path, random.Random], str]] = {
    "records": of_record,
    "units": of_unit,
    "checkpoints": of_checkpoint,
}


def draw_record(draws: random.Random) -> Record:
    """A record of any kind."""
    interval = (draws.choice(NUMBERS), draws.choice(NUMBERS))
    details = {draws.choice(TEXTS): draw_value(draws, 3) for _ in range(draws.randint(0, 4))}
    return Record(
        draws.choice(("metric", "epoch", "timing", "artifact")),
        draws.choice(TEXTS),
        draws.choice((None, draws.random(), draws.choice(NUMBERS[:-3]))),
        draws.choice((None, 0, 10_000)),
        draws.choice((None, interval)),
        draws.choice((None, 0, 2**31)),
        draws.choice((None, "c" * 12)),
        details,
        draws.choice((None, 0.0, draws.random())),
    )


def draw_value(draws: random.Random, depth: int) -> Any:
    """A value that JSON can hold."""
    kinds = ["number", "text", "word"] + (["list", "object"] if depth else [])
    match draws.choice(kinds):
        case "number":
            return draws.choice((*NUMBERS, draws.random()))
        case "text":
            return draws.choice(TEXTS)
        case "word":
            return draws.choice((None, True, False))
        case "list":
            return [draw_value(draws, depth - 1) for _ in range(draws.randint(0, 3))]
    return {draws.choice(TEXTS): draw_value(draws, depth - 1) for _ in range(draws.randint(0, 3))}


def draw_unit(draws: random.Random) -> Unit:
    """A unit of some images, with the columns that some evaluations have or without."""
    count = draws.choice((0, 1, 2, 7))

    def column(values: tuple[Any, ...]) -> list[Any]:
        return [draws.choice(values) for _ in range(count)]

    whole, distances = (0, 1, 2**40), (None, 0.0, 1e-320, 1 / 3, 1.7e308)
    by_draws = draws.random() < 0.3
    return Unit(
        sorted(draws.sample(range(1000), count)),
        column(whole),
        column((True, False)),
        column(whole),
        column(whole),
        draws.choice((0.0, 1 / 3, 1e9)),
        draws.choice((None, column(distances))),
        draws.choice((None, column(distances))),
        column(whole) if by_draws else None,
        column(whole) if by_draws else None,
    )


def draw_tensor(draws: random.Random, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    """A tensor of any bits: NaN of every kind, infinities and subnormals among the floats."""
    generator = torch.Generator().manual_seed(draws.getrandbits(40))
    if kind is torch.bool:
        return torch.randint(2, shape, generator=generator).bool()
    size = torch.empty((), dtype=kind).element_size()
    drawn = torch.randint(256, (*shape, size), generator=generator, dtype=torch.uint8)
    return drawn.view(kind).view(shape)


if __name__ == "__main__":
    main()
