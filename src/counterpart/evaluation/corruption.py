"""Accuracy under common corruptions: two numbers per corruption and severity, each kept once it is counted.

Images stream through in batches, so that memory does not grow with their number; the original model judges in float32.
Counts are whole numbers, summed over processes and divided once.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from .. import devices, distributed
from ..batch import Batch
from ..checks import check_labels
from ..data.corruptions import BENCHMARK, CORRUPTIONS
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..errors import UserError
from ..parsing import parse_json
from ..progress import track
from ..records import Record, append
from ..statistics import wilson
from .accuracy import logits_of
from .ledger import weights_hash

CLEAN = ("clean", 0)
PREFIX = "corruption/"

Variant = tuple[str, int]
"""A corruption and its severity; ``CLEAN`` for the images as they are."""


@dataclass(frozen=True)
class Count:
    """What a variant came to.

    Attributes:
        right: images that are classified correctly.
        n: images.
        seconds: how long it took.
        stamp: what else decides it, such as the hash of the textures of frost.
    """

    right: int
    n: int
    seconds: float
    stamp: str


def count(
    model: nn.Module,
    images: ImageSet,
    variants: Sequence[Variant],
    *,
    corrupted: Callable[[Batch, str, int], Tensor],
    stamp: Callable[[str], str],
    folder: Path,
    batch_size: int,
    device: torch.device,
    title: str = "corruptions",
) -> dict[Variant, Count]:
    """The counts of all variants; those that the folder holds already are not made again.

    Args:
        model: the original, judged in float32.
        images: as they are.
        variants: what to do to them.
        corrupted: a batch, a name and a severity -> its images (B, C, H, W) in [0, 1] under them.
        stamp: of a corruption: a count with another stamp is made again.
        folder: where counts go, of one identity: all else that decides them.
        batch_size: images at once, over all processes.
        device: where to compute.
        title: words before the progress bar.

    Raises:
        UserError: labels that the model does not have, answers that are not finite, no memory, a damaged file. What is
            counted stays.
    """
    file = folder / "counts.jsonl"
    stored = _read(file)
    counts: dict[Variant, Count] = {}
    weights = weights_hash(model)
    with track(title, len(variants) * len(images)) as bar:
        for name, severity in variants:
            bar.describe(f"{title}: {name} {severity or ''}".rstrip())
            known = stored.get((name, severity))
            if distributed.any_(known is None or known.stamp != stamp(name), device):
                started = time.monotonic()
                # ``batches`` shares every batch between the processes.
                loader = batches(images, batch_size=batch_size, device=device)
                right = torch.zeros((), dtype=torch.int64, device=device)
                for batch in loader:
                    right += _right(model, batch, name, severity, corrupted)
                distributed.sum_([right])
                if weights_hash(model) != weights:
                    raise UserError("the model changed while it was evaluated: call eval() in it.")
                known = Count(int(right), len(images), time.monotonic() - started, stamp(name))
                if distributed.is_main():
                    # Not flushed to disk one by one: with few images that is most of the time.
                    row = {"corruption": name, "severity": severity, **asdict(known)}
                    append(file, [json.dumps(row)], flush=False)
            assert known is not None
            counts[name, severity] = known
            bar.advance(len(images))
    distributed.barrier()
    return counts


def _right(
    model: nn.Module,
    batch: Batch,
    name: str,
    severity: int,
    corrupted: Callable[[Batch, str, int], Tensor],
) -> int:
    """How many images of a batch are classified correctly."""
    if len(batch) == 0:  # a small last batch may leave a process without images
        return 0
    try:
        changed = batch.images if (name, severity) == CLEAN else corrupted(batch, name, severity)
        logits = logits_of(model, changed)
        check_labels(batch.labels, logits.shape[1])
    except ValueError as error:  # of what comes from outside: sizes, labels, answers
        raise UserError(f"{name}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(
            f"Out of memory with {name} on batches of {len(batch)}: use a smaller --evaluate.batch-size."
        ) from error
    return int((logits.argmax(dim=1) == batch.labels).sum())


def _read(file: Path) -> dict[Variant, Count]:
    """What is counted, the last count of a variant; an unfinished last line (a killed writer) is left out."""
    counts: dict[Variant, Count] = {}
    if not file.exists():
        return counts
    try:
        whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
        for row in map(parse_json, whole.splitlines()):
            variant = row.pop("corruption"), row.pop("severity")
            counts[variant] = Count(**row)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{file} is damaged. Remove it, and evaluate again.") from None
    return counts


def severities_text(severities: Sequence[int]) -> str:
    """ "severity 1", "severities 1-5" or "severities 1, 3"."""
    if len(severities) == 1:
        return f"severity {severities[0]}"
    whole = list(severities) == list(range(severities[0], severities[-1] + 1))
    ends = f"{severities[0]}-{severities[-1]}" if whole else ", ".join(map(str, severities))
    return f"severities {ends}"


def metrics(
    counts: Mapping[Variant, Count],
    names: Sequence[str],
    severities: Sequence[int],
    left_out: Mapping[str, str],
    details: Mapping[str, Any],
) -> list[Record]:
    """A record per variant, a mean per corruption, and means over the corruptions.

    A mean is of the accuracies, each with equal weight. Its interval has the means of their ends: variants are of the
    same images, and however they hang together, this is not too narrow.

    Args:
        counts: of all variants, and of ``CLEAN``.
        names: corruptions that were counted.
        severities: at which.
        left_out: corruption -> why it was asked for and is missing.
        details: what all records share.

    Returns:
        The mean over the 15 of the benchmark, and over all 19 where one of the other four was counted, say in their
        names how many they are of where corruptions are missing.
    """
    label = severities_text(severities)
    shared = {**details, "severities": list(severities)}
    single = {
        variant: Record(
            "metric", f"{PREFIX}{variant[0]}/severity {variant[1]}" if variant[1] else f"{PREFIX}clean",
            counted.right / counted.n, counted.n, wilson(counted.right, counted.n), details={**details},
            seconds=counted.seconds,
        )
        for variant, counted in counts.items()
    }  # fmt: skip
    means = [
        _mean(f"{name}/{label}", [single[name, severity] for severity in severities], shared)
        for name in names
        if len(severities) > 1
    ]
    whole: list[Record] = []
    for group in (BENCHMARK, tuple(CORRUPTIONS)):
        there = [name for name in group if name in names]
        if not there or (group is not BENCHMARK and set(there) <= set(BENCHMARK)):
            continue
        of = f"the {len(group)}" if len(there) == len(group) else f"{len(there)} of the {len(group)}"
        parts = [single[name, severity] for name in there for severity in severities]
        more = {"corruptions": there, "left_out": {k: v for k, v in left_out.items() if k in group}}
        whole.append(_mean(f"mean of {of}/{label}", parts, {**shared, **more}))
    return [*single.values(), *means, *whole]


def _mean(name: str, parts: Sequence[Record], details: Mapping[str, Any]) -> Record:
    intervals = [part.interval for part in parts if part.interval is not None]
    ends = fmean(low for low, _ in intervals), fmean(high for _, high in intervals)
    value = fmean(part.value for part in parts if part.value is not None)
    return Record("metric", f"{PREFIX}{name}", value, parts[0].n, ends, details=details)
