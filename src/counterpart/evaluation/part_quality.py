"""How well a part model segments: pixel accuracy and mean intersection over union, clean and under attack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import distributed
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..part_maps import predicted_parts
from ..protocols import Attack, Classifier, PartModel
from ..records import Record
from ..seeding import Keys
from .accuracy import BudgetOf, as_judged

RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class PartCounts:
    """Pixels of each annotated image.

    Attributes:
        both: (N, P + 1) pixels of a part that are predicted as that part; part 0 is the background.
        either: (N, P + 1) pixels that are of a part, or predicted as it, or both.
        size: pixels of an image.
    """

    both: Float[Tensor, "n p"]
    either: Float[Tensor, "n p"]
    size: int


def count_parts(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    *,
    attack: Attack | None,
    budget_of: BudgetOf,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> PartCounts:
    """Compare predicted with annotated parts, by the original model in float32; shared between processes.

    Args:
        model: a ``PartModel``.
        view: what the attack searches on.
        images: with annotated parts; those without a mask do not count.
        attack: on the class, against every image, whether or not the model knows it; None: clean images.
        budget_of: what the attacker may do.
        batch_size: images at once.
        device: where to compute.
        seed: of the attack.
    """
    assert isinstance(model, PartModel)
    assert images.parts is not None
    annotated = images.subset(images.parts.there.nonzero()[:, 0].to(images.labels.device))
    number, (_, height, width) = images.parts.count + 1, images.shape
    counts = torch.zeros(2, len(annotated), number, dtype=torch.float64, device=device)
    place = {index: row for row, index in enumerate(annotated.index.tolist())}
    for batch in batches(annotated, batch_size=batch_size, device=device):
        if len(batch) == 0:
            continue
        seen = batch.images
        if attack is not None:
            keys = Keys(seed, "part quality", batch.index)
            seen = attack(view, seen, batch.labels, budget=budget_of(batch), keys=keys).images
        with torch.no_grad(), as_judged(model, device):
            found = predicted_parts(model.forward_parts(seen).part_logits, (height, width))
        assert batch.parts is not None
        true, rows = batch.parts.long(), [place[index] for index in batch.index.tolist()]
        both = _counts(true.where(true == found, number), number)
        counts[0, rows] = both
        counts[1, rows] = _counts(true, number) + _counts(found, number) - both
    distributed.sum_([counts])
    both, either = counts.cpu()
    return PartCounts(both, either, height * width)


def part_metrics(counts: PartCounts, name: str, details: Mapping[str, Any], seed: int) -> list[Record]:
    """Pixel accuracy, background included, and mIoU over the parts that occur, background included.

    Both are of the data set: pixels are added up over images first. Intervals are bootstraps over the images, 95 %.

    Args:
        counts: of ``count_parts``.
        name: which images: "clean", or the attack's name.
        details: what else the records say.
        seed: of the run, and of the bootstrap.
    """
    n = len(counts.both)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n, (RESAMPLES, n), generator=generator)
    weights = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(
        1, draws, torch.ones_like(draws, dtype=torch.float64)
    )
    metrics = {"pixel accuracy": _pixel_accuracy, "mIoU": _mean_iou}
    made = []
    for metric, function in metrics.items():
        value = float(function(counts, torch.ones(1, n, dtype=torch.float64)))
        resampled = function(counts, weights)
        low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        details = {**details, "interval": f"bootstrap over {n} images, {RESAMPLES} draws"}
        made.append(Record("metric", f"parts/{metric} {name}", value, n, (low, high), seed, details=details))
    return made


def _pixel_accuracy(counts: PartCounts, weights: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    right = counts.both.sum(dim=1) / counts.size
    return (weights @ right) / weights.sum(dim=1)


def _mean_iou(counts: PartCounts, weights: Float[Tensor, "r n"]) -> Float[Tensor, " r"]:
    both, either = weights @ counts.both, weights @ counts.either
    there = either > 0
    return torch.where(there, both / either.clamp(min=1), 0.0).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def _counts(parts: Tensor, number: int) -> Float[Tensor, "b p"]:
    """(B, H, W) of ids -> how often each id below ``number`` occurs in each image."""
    counts = torch.zeros(len(parts), number + 1, dtype=torch.float64, device=parts.device)
    ids = parts.flatten(1)
    return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float64))[:, :number]
