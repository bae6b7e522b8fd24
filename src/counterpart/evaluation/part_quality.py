"""How well a part model segments: pixel accuracy and mean intersection over union, clean and under attack."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor, nn

from .. import distributed
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..part_maps import predicted_parts
from ..protocols import Classifier, NamedAttack, PartModel
from ..records import Record
from ..seeding import Keys
from .accuracy import BudgetOf, as_judged


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
    attack: NamedAttack | None,
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
        attack: against every image, whether or not the model knows it; None: clean images.
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
            seen = attack.on(view, batch, budget=budget_of(batch), keys=keys).images
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

    Both are of the data set: pixels are added up over images first. The 95 % intervals are for the draw of the images,
    by the delta method: each image moves a ratio of sums by what it adds beyond its share.

    Args:
        counts: of ``count_parts``.
        name: which images: "clean", or the attack's name.
        details: what else the records say.
        seed: of the run.
    """
    n = len(counts.both)
    right = counts.both.sum(dim=1) / counts.size
    both, either = counts.both.sum(dim=0), counts.either.sum(dim=0)
    there = either > 0
    iou = (both / either)[there]
    moves = ((counts.both[:, there] - iou * counts.either[:, there]) / either[there]).mean(dim=1)
    found = {
        "pixel accuracy": (right.mean(), (right - right.mean()) / n),
        "mIoU": (iou.mean(), moves),
    }
    made = []
    for metric, (value, influence) in found.items():
        half = float(ndtri(0.975)) * math.sqrt(n / max(1, n - 1) * float(influence.square().sum()))
        interval = (max(0.0, float(value) - half), min(1.0, float(value) + half))
        made.append(
            Record("metric", f"parts/{metric} {name}", float(value), n, interval, seed, details=details)
        )
    return made


def _counts(parts: Tensor, number: int) -> Float[Tensor, "b p"]:
    """(B, H, W) of ids -> how often each id below ``number`` occurs in each image."""
    counts = torch.zeros(len(parts), number + 1, dtype=torch.float64, device=parts.device)
    ids = parts.flatten(1)
    return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float64))[:, :number]
