"""Accuracy under common corruptions such as noise, blur and fog, at several severities.

For each corruption and severity the images that are classified correctly are counted, and each count is
written as soon as it is made. The original model judges in float32.

Images stream through in batches, so that memory does not grow with their number. Counts are whole numbers;
they are summed over the processes and divided once.
"""

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
from ..checksums import to_json
from ..data.corruptions import BENCHMARK, CORRUPTIONS
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..errors import UserError
from ..progress import track
from ..records import Record, append, read_rows
from ..statistics import wilson
from .answers import logits_of
from .unchanged import remember

CLEAN = ("clean", 0)
PREFIX = "corruption/"

Variant = tuple[str, int]
"""The name of a corruption and its severity; ``CLEAN`` stands for the images as they are."""


@dataclass(frozen=True)
class Count:
    """The result of one variant.

    Attributes:
        right: the number of images that are classified correctly.
        n: the number of images.
        seconds: the time that the count took.
        stamp: a text that changes with whatever else decides the count, such as the hash of the frost
            textures.
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
        model: the original model, which judges in float32.
        images: the images without corruption.
        variants: the corruptions and severities to count.
        corrupted: a function from a batch, the name of a corruption and a severity to the corrupted images
            (B, C, H, W) in [0, 1].
        stamp: a function from the name of a corruption to its present stamp. A count with another stamp is
            made again.
        folder: the folder that receives the counts. It belongs to one identity, which is everything else that
            decides them.
        batch_size: the number of images at once, over all processes together.
        device: the device that computes.
        title: the words before the progress bar.

    Raises:
        UserError: a label is no class of the model, an answer is not finite, memory does not suffice, the
            model changes while it is evaluated, or the file of counts is damaged. What is counted stays.
    """
    file = folder / "counts.jsonl"
    # The main process writes the counts, and the others may not see them.
    stored = distributed.gather(_read(file))[0]
    counts: dict[Variant, Count] = {}
    is_unchanged = remember(model)
    with track(title, len(variants) * len(images)) as bar:
        for name, severity in variants:
            bar.enter(f"{title}: {name} {severity or ''}".rstrip())
            known = stored.get((name, severity))
            if distributed.any_(known is None or known.stamp != stamp(name), device):
                started = time.monotonic()
                # ``batches`` shares every batch between the processes.
                loader = batches(images, batch_size=batch_size, device=device)
                right = torch.zeros((), dtype=torch.int64, device=device)
                for number, batch in enumerate(loader):
                    right += _right(model, batch, name, severity, corrupted)
                    bar.advance(min(batch_size, len(images) - batch_size * number))
                distributed.sum_([right])
                if not bool(is_unchanged()):
                    raise UserError(
                        "the model changed while it was evaluated: keep its layers in eval mode, or mend its forward."
                    )
                known = Count(int(right), len(images), time.monotonic() - started, stamp(name))
                if distributed.is_main():
                    # Flushing counts one by one would take most of the time where images are few.
                    row = {"corruption": name, "severity": severity, **asdict(known)}
                    append(file, [to_json(row)], flush=False)
            else:
                bar.skip(len(images))
            assert known is not None
            counts[name, severity] = known
    distributed.barrier()
    return counts


def _right(
    model: nn.Module,
    batch: Batch,
    name: str,
    severity: int,
    corrupted: Callable[[Batch, str, int], Tensor],
) -> int:
    """The number of images of a batch that are classified correctly under a corruption."""
    if len(batch) == 0:  # a small last batch may leave a process without images
        return 0
    try:
        changed = batch.images if (name, severity) == CLEAN else corrupted(batch, name, severity)
        logits = logits_of(model, changed)
        check_labels(batch.labels, logits.shape[1])
    except ValueError as error:  # sizes, labels and answers come from outside
        raise UserError(f"{name}: {error}") from error
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(
            f"Out of memory with {name} on batches of {len(batch)}: use a smaller --evaluate.batch-size."
        ) from error
    return int((logits.argmax(dim=1) == batch.labels).sum())


def _read(file: Path) -> dict[Variant, Count]:
    """The last count of each variant in a file.

    An unfinished last line, which a killed process may leave, is passed over.

    Raises:
        UserError: the file is damaged.
    """
    counts: dict[Variant, Count] = {}
    if not file.exists():
        return counts
    for number, _, row in read_rows(file, "is no count"):
        try:
            variant = row.pop("corruption"), row.pop("severity")
            counts[variant] = Count(**row)
        except (TypeError, KeyError):
            raise UserError(
                f"{file}, line {number} is no count. Remove the file, and evaluate again."
            ) from None
    return counts


def severities_text(severities: Sequence[int]) -> str:
    """Severities in words: "severity 1", "severities 1-5" or "severities 1, 3"."""
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
    """The records of the accuracies: one per variant, a mean per corruption, and means over the corruptions.

    A mean gives each accuracy equal weight. The ends of its interval are the means of the ends of their
    intervals. All variants show the same images, and however strongly their results depend on each other,
    such an interval is not too narrow.

    Args:
        counts: the counts of all variants, ``CLEAN`` among them.
        names: the corruptions that were counted.
        severities: the severities at which they were counted.
        left_out: a mapping from each corruption that was asked for and is missing to the reason.
        details: the details that all records share.

    Returns:
        The records of the variants, then the means. One mean is over the 15 corruptions of the benchmark.
        Another is over all 19, if one of the other four was counted. Where corruptions are missing, the name
        of the mean says over how many it was taken.
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
    """The record of the mean of some records, each with equal weight."""
    intervals = [part.interval for part in parts if part.interval is not None]
    ends = fmean(low for low, _ in intervals), fmean(high for _, high in intervals)
    value = fmean(part.value for part in parts if part.value is not None)
    return Record("metric", f"{PREFIX}{name}", value, parts[0].n, ends, details=details)
