"""How well a part model segments: pixel accuracy and intersection over union, clean and under attack."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .. import distributed
from ..attacks import pgd, single_staged
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..data.parts import part_names
from ..errors import UserError
from ..part_maps import predicted_parts
from ..protocols import Classifier, NamedAttack, PartModel
from ..records import Record
from ..seeding import Keys
from ..statistics import NORMAL_QUANTILE
from .accuracy import BudgetOf, as_judged

ATTACKED, ATTACKED_PARTS = "under PGD-20", "under PGD-20 on the parts"
PIXELS, FOREGROUND, MIOU = "pixel accuracy", "pixel accuracy without background", "mIoU"
NAMES = tuple(
    f"parts/{metric} {how}"
    for how in ("clean", ATTACKED, ATTACKED_PARTS)
    for metric in (PIXELS, FOREGROUND, MIOU)
)
"""Names of the records that ``part_metrics`` makes."""
FEWEST = 10  # images with a part: with less, the delta method makes its interval too narrow


@dataclass(frozen=True)
class PartCounts:
    """Pixels of each annotated image.

    Attributes:
        names: of the P + 1 parts; part 0 is the background.
        both: (N, P + 1) pixels of a part that are predicted as that part.
        true: (N, P + 1) pixels of a part.
        predicted: (N, P + 1) pixels that are predicted as a part.
    """

    names: Sequence[str]
    both: Float[Tensor, "n p"]
    true: Float[Tensor, "n p"]
    predicted: Float[Tensor, "n p"]


def refuse_without_parts(name: str, model: nn.Module, images: ImageSet) -> None:
    """Before an hour of attacks, not after it, of ``evaluate.parts``.

    Raises:
        UserError: the model finds no parts, or none are annotated to compare with, or others are.
    """
    if not isinstance(model, PartModel):
        raise UserError(
            f"evaluate.parts: {name} is no part model and finds no parts: evaluate a part model (model.name "
            "parts/...), or leave it out."
        )
    if images.parts is None or not bool(images.parts.there.any()):
        raise UserError(
            f"evaluate.parts: the {images.split} images of {images.name} have no annotated parts: use data.name "
            "parts or synthetic-parts, with masks of this split, or leave it out."
        )
    if (known := len(model.part_classes)) != images.parts.count:
        raise UserError(
            f"evaluate.parts: {name} was trained to find {known} parts, and {images.name} names {images.parts.count}: "
            "judge it on the data and the data.labels that it was trained on."
        )


def part_metrics(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    *,
    budget_of: BudgetOf,
    batch_size: int,
    device: torch.device,
    seed: int,
    details: Mapping[str, Any],
) -> list[Record]:
    """How well parts are found: on clean images, under PGD-20 on the class, and under PGD-20 on the parts.

    Args:
        model: a ``PartModel``.
        view: what the attacks search on.
        images: with annotated parts; those without a mask do not count.
        budget_of: what the attacker may do.
        batch_size: images at once.
        device: where to compute.
        seed: of the run.
        details: what else the records say.
    """
    assert isinstance(model, PartModel)
    on_class = partial(pgd, steps=20, last_iterate=True)
    on_parts = partial(
        single_staged,
        share=1.0,
        steps=20,
        restarts=1,
        to_the_end=True,
        full_resolution=model.full_resolution,
    )
    attacks = {
        "clean": None,
        ATTACKED: NamedAttack(ATTACKED, on_class, ATTACKED),
        ATTACKED_PARTS: NamedAttack(ATTACKED_PARTS, on_parts, ATTACKED_PARTS, parts=True),
    }
    made = []
    for name, attack in attacks.items():
        counts = count_parts(
            model, view, images, attack=attack, budget_of=budget_of, batch_size=batch_size, device=device, seed=seed
        )  # fmt: skip
        made += metrics_of(counts, name, details, seed)
    return made


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
    annotated = images.annotated()
    names, (_, height, width) = part_names(images.parts.names), images.shape
    number = len(names)
    counts = torch.zeros(3, len(annotated), number, dtype=torch.float64, device=device)
    place = {index: row for row, index in enumerate(annotated.index.tolist())}
    for batch in batches(annotated, batch_size=batch_size, device=device):
        if len(batch) == 0:
            continue
        seen = batch.images
        if attack is not None:
            keys = Keys(seed, "part quality", batch.index)
            seen = attack.on(view, batch, budget=budget_of(batch), keys=keys).images
        with torch.no_grad(), as_judged(model, device):
            predicted = predicted_parts(model.forward_parts(seen).part_logits, (height, width))
        assert batch.parts is not None
        true, rows = batch.parts.long(), [place[index] for index in batch.index.tolist()]
        for kind, parts in enumerate((true.where(true == predicted, number), true, predicted)):
            counts[kind, rows] = _counts(parts, number)
    distributed.sum_([counts])
    return PartCounts(names, *counts.cpu())


def metrics_of(counts: PartCounts, name: str, details: Mapping[str, Any], seed: int) -> list[Record]:
    """Pixel accuracy with the background and without, and mIoU over the parts that occur, background included.

    All are of the data set: pixels are added up over images first. The 95 % intervals are for the draw of the images,
    by the delta method: each image moves a ratio of sums by what it adds beyond its share.

    Without the background, the pixels that are annotated as a part count: whatever is found elsewhere does not. The
    record of mIoU has {part: {"iou", "n", "interval"}} as ``per_part``: n images show the part, and the interval is
    None where they are fewer than ``FEWEST`` or do not differ.

    Args:
        counts: of ``count_parts``.
        name: which images: "clean", or the attack's name.
        details: what else the records say.
        seed: of the run.
    """
    n, either = len(counts.both), counts.true + counts.predicted - counts.both
    there = either.sum(dim=0) > 0
    iou, moves = _ratio(counts.both[:, there], either[:, there])
    shares = {
        PIXELS: _ratio(counts.both.sum(dim=1), counts.true.sum(dim=1)),
        FOREGROUND: _ratio(counts.both[:, 1:].sum(dim=1), counts.true[:, 1:].sum(dim=1)),
        MIOU: (iou.mean(), moves.mean(dim=1)),
    }
    per_part = {}
    for i, part in enumerate(there.nonzero()[:, 0].tolist()):
        showing = int((counts.true[:, part] > 0).sum())
        known = showing >= FEWEST and bool(moves[:, i].any())
        interval = _interval(iou[i], moves[:, i]) if known else None
        per_part[counts.names[part]] = {"iou": float(iou[i]), "n": showing, "interval": interval}
    return [
        Record(
            "metric", f"parts/{metric} {name}", float(value), n, _interval(value, influence), seed,
            details={**details, "per_part": per_part} if metric == MIOU else details,
        )
        for metric, (value, influence) in shares.items()
        if value.isfinite()  # masks that are all background have no part to find
    ]  # fmt: skip


def _ratio(top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) or (N, P) numbers of each image -> the ratio of their sums over images, and how far each image moves it."""
    total = bottom.sum(dim=0)
    value = top.sum(dim=0) / total
    return value, (top - value * bottom) / total


def _interval(value: Tensor, influence: Float[Tensor, " n"]) -> tuple[float, float]:
    n = len(influence)
    half = NORMAL_QUANTILE * math.sqrt(n / max(1, n - 1) * float(influence.square().sum()))
    return max(0.0, float(value) - half), min(1.0, float(value) + half)


def _counts(parts: Tensor, number: int) -> Float[Tensor, "b p"]:
    """(B, H, W) of ids -> how often each id below ``number`` occurs in each image."""
    counts = torch.zeros(len(parts), number + 1, dtype=torch.float64, device=parts.device)
    ids = parts.flatten(1)
    return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float64))[:, :number]
