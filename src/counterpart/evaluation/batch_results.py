"""What an evaluation learns from a batch, and the unit of the ledger that the results of its batches make up."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .ledger import Unit

COLUMNS = ("answers", "fooled", "forwards", "backwards")
"""The fields of every ``BatchResult`` that a unit has a column of, and that lie on the device."""


@dataclass(frozen=True)
class BatchResult:
    """The result of one batch.

    On clean images no attack runs, and ``fooled`` marks the images that the model gets wrong anyway. Where images are
    judged by draws, ``first`` and ``fresh`` count the right answers.
    """

    positions: Tensor
    answers: Tensor
    fooled: Tensor
    forwards: Tensor
    backwards: Tensor
    images: Tensor | None = None
    radii: Tensor | None = None
    distances: Tensor | None = None
    first: Tensor | None = None
    fresh: Tensor | None = None


def read_columns(results: Sequence[BatchResult], flag: Tensor) -> tuple[dict[str, list[int]], bool]:
    """The columns of a unit that lie on the device, and a truth value of it, at one wait for the device."""
    columns = [torch.cat([getattr(result, name) for result in results]).long() for name in COLUMNS]
    flag_as_row = flag.to(columns[0].device, non_blocking=True).long().view(1)
    *numbers, truth = torch.cat([*columns, flag_as_row]).tolist()
    size = len(columns[0])
    rows = {name: numbers[size * place : size * (place + 1)] for place, name in enumerate(COLUMNS)}
    return rows, bool(truth)


def unit_of(results: Sequence[BatchResult], columns: Mapping[str, list[int]], seconds: float) -> Unit:
    """The unit that the results of its batches make up, with the ``columns`` that were read."""
    return Unit(
        positions=torch.cat([result.positions for result in results]).tolist(),
        answers=columns["answers"],
        fooled=[bool(number) for number in columns["fooled"]],
        forwards=columns["forwards"],
        backwards=columns["backwards"],
        seconds=seconds,
        radii=_finite(_joined(results, "radii")),
        distances=_finite(_joined(results, "distances")),
        first=_joined(results, "first"),
        fresh=_joined(results, "fresh"),
    )


def kept_images(results: Sequence[BatchResult], unit: Unit) -> Tensor | None:
    """The images at ``unit.with_images``, on the device; None where no attack made any."""
    images = [result.images for result in results if result.images is not None]
    if not images:
        return None
    if unit.first is not None:
        return torch.cat(images)
    flags = torch.tensor(unit.fooled, dtype=torch.bool)
    chosen = []
    for batch, fooled in zip(images, torch.split(flags, [len(batch) for batch in images]), strict=True):
        places = fooled.nonzero()[:, 0]  # of a tensor on the host: a mask on the device would wait for it
        chosen.append(batch[places.to(batch.device, non_blocking=True)])
    return torch.cat(chosen)


def _joined(results: Sequence[BatchResult], name: str) -> list[Any] | None:
    """The values of a field of all batches, or None where they have no such field."""
    parts = [getattr(result, name) for result in results]
    parts = [part for part in parts if part is not None]
    return torch.cat(parts).tolist() if parts else None


def _finite(numbers: Sequence[float] | None) -> list[float | None] | None:
    """The same numbers, with None for NaN and infinity."""
    if numbers is None:
        return None
    return [number if math.isfinite(number) else None for number in numbers]
