"""How well a part model finds parts: pixel accuracy and intersection over union, clean and under attack."""

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
from ..contracts import Classifier, NamedAttack, PartModel
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..data.parts import part_names
from ..errors import UserError
from ..part_maps import predicted_parts
from ..records import Record
from ..seeding import Keys
from ..statistics import NORMAL_QUANTILE
from .accuracy import BudgetOf
from .answers import as_judged

ATTACKED, ATTACKED_PARTS = "under PGD-20", "under PGD-20 on the parts"
PIXELS, FOREGROUND, MIOU = "pixel accuracy", "pixel accuracy without background", "mIoU"
NAMES = tuple(
    f"parts/{metric} {how}"
    for how in ("clean", ATTACKED, ATTACKED_PARTS)
    for metric in (PIXELS, FOREGROUND, MIOU)
)
"""The names of the records that ``part_metrics`` makes."""
FEWEST = 10  # the fewest images with a part: with less, the delta method makes its interval too narrow


@dataclass(frozen=True)
class PartCounts:
    """The numbers of pixels of each part in each of N annotated images.

    Attributes:
        names: the names of the P + 1 parts; part 0 is the background.
        both: the pixels (N, P + 1) that are annotated as a part and predicted as the same part.
        true: the pixels (N, P + 1) that are annotated as a part.
        predicted: the pixels (N, P + 1) that are predicted as a part.
    """

    names: Sequence[str]
    both: Float[Tensor, "n p"]
    true: Float[Tensor, "n p"]
    predicted: Float[Tensor, "n p"]


def refuse_without_parts(name: str, model: nn.Module, images: ImageSet) -> None:
    """Refuse ``evaluate.parts`` where parts cannot be judged, before the attacks and not an hour later.

    Raises:
        UserError: the model finds no parts, the images have no annotated parts to compare with, or the
            annotated parts are others than those of the model.
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
    """The records of how well parts are found, on clean images and under two attacks.

    One attack is PGD of 20 steps that aims at the class, the other PGD of 20 steps that aims at the parts.

    Args:
        model: the original model, a ``PartModel``.
        view: the copy of the model that the attacks search on.
        images: the images with annotated parts; those without a mask do not count.
        budget_of: how far the attacker may change the images.
        batch_size: the number of images at once.
        device: the device that computes.
        seed: the seed of the run.
        details: the details that all records share.
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
    records = []
    for name, attack in attacks.items():
        counts = count_parts(
            model, view, images, attack=attack, budget_of=budget_of, batch_size=batch_size, device=device, seed=seed
        )  # fmt: skip
        records += metrics_of(counts, name, details, seed)
    return records


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
    """The pixel counts that compare predicted with annotated parts.

    The original model predicts in float32. Under ``torchrun`` each batch is shared between the processes.

    Args:
        model: the original model, a ``PartModel``.
        view: the copy of the model that the attack searches on.
        images: the images with annotated parts; those without a mask do not count.
        attack: the attack on every image, whether or not the model classifies it correctly; None for clean
            images.
        budget_of: how far the attacker may change the images.
        batch_size: the number of images at once.
        device: the device that computes.
        seed: the number that all randomness of the attack is derived from.
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
        inputs = batch.images
        if attack is not None:
            keys = Keys(seed, "part quality", batch.index)
            inputs = attack.on(view, batch, budget=budget_of(batch), keys=keys).images
        with torch.no_grad(), as_judged(model, device):
            predicted = predicted_parts(model.forward_parts(inputs).part_logits, (height, width))
        assert batch.parts is not None
        true, rows = batch.parts.long(), [place[index] for index in batch.index.tolist()]
        for kind, parts in enumerate((true.where(true == predicted, number), true, predicted)):
            counts[kind, rows] = _counts(parts, number)
    distributed.sum_([counts])
    return PartCounts(names, *counts.cpu())


def metrics_of(counts: PartCounts, name: str, details: Mapping[str, Any], seed: int) -> list[Record]:
    """The records of pixel accuracy, with and without the background, and of mean intersection over union.

    Pixels are added up over all images first, so that every number is one of the data set. The mean is over
    the parts that occur, the background included.

    The 95 % intervals say what another draw of the images could change. They come from the delta method: each
    image moves a ratio of sums by what it adds beyond its share.

    The accuracy without the background counts only pixels that are annotated as a part. What the model finds
    elsewhere does not change it.

    The record of mIoU has {part: {"iou", "n", "interval"}} as ``per_part``: n is the number of images that
    show the part. The interval is None where these are fewer than ``FEWEST`` or all alike.

    Args:
        counts: the pixel counts of ``count_parts``.
        name: "clean", or the name of the attack on the images.
        details: the details that all records share.
        seed: the seed of the run.
    """
    n = len(counts.both)
    there, iou, moves = _intersection_over_union(counts)
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


def part_ious(counts: PartCounts) -> dict[str, float]:
    """The intersection over union of each part that occurs, the background included, as ``metrics_of`` has it."""
    there, ious, _ = _intersection_over_union(counts)
    places = there.nonzero()[:, 0].tolist()
    return {counts.names[place]: iou for place, iou in zip(places, ious.tolist(), strict=True)}


def _intersection_over_union(counts: PartCounts) -> tuple[Tensor, Tensor, Tensor]:
    """Which parts occur (P + 1,), the intersection over union of those, and how far each image (N, ...) moves it."""
    either = counts.true + counts.predicted - counts.both
    there = either.sum(dim=0) > 0
    return there, *_ratio(counts.both[:, there], either[:, there])


def _ratio(top: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor]:
    """The ratio of two sums over N images, (N,) or (N, P) numbers each, and how far each image moves it."""
    total = bottom.sum(dim=0)
    value = top.sum(dim=0) / total
    return value, (top - value * bottom) / total


def _interval(value: Tensor, influence: Float[Tensor, " n"]) -> tuple[float, float]:
    """The 95 % interval of a share, within [0, 1], from how far each image moves it."""
    n = len(influence)
    half = NORMAL_QUANTILE * math.sqrt(n / max(1, n - 1) * float(influence.square().sum()))
    return max(0.0, float(value) - half), min(1.0, float(value) + half)


def _counts(parts: Tensor, number: int) -> Float[Tensor, "b p"]:
    """How often each id below ``number`` occurs in each image of a batch of id maps (B, H, W)."""
    counts = torch.zeros(len(parts), number + 1, dtype=torch.float64, device=parts.device)
    ids = parts.flatten(1)
    return counts.scatter_add_(1, ids, torch.ones_like(ids, dtype=torch.float64))[:, :number]
