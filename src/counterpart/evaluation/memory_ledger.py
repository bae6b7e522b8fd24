"""A ledger that is kept in memory: for an evaluation whose user asked for no folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import distributed
from .ledger import Ledger, Unit

MOST_BYTES = 2**31  # of images that fooled the model; those that come after are not kept

Place = tuple[str, int]
"""An attack's name and a chunk."""


@dataclass(frozen=True)
class MemoryLedger(Ledger):
    """The units of one evaluation in memory, asked and answered as ``Ledger`` is.

    Attributes:
        most_bytes: how much memory images that fooled the model may take.
        units: what was committed.
        pictures: the images that fooled the model, and their positions, where they were kept.
        radii: (N, 1 or C, H, W) and the data-set index (N,) of a mask-aware evaluation, once drawn.
    """

    folder: Path = Path()
    chunks: int = 0
    most_bytes: int = MOST_BYTES
    units: dict[Place, Unit] = field(default_factory=dict)
    pictures: dict[Place, tuple[Tensor, list[int]]] = field(default_factory=dict)
    radii: list[Tensor] = field(default_factory=list)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Nothing is to be made."""

    def read(self, name: str, chunk: int) -> Unit | None:
        """A unit, or None where it was not made."""
        return self.units.get((name, chunk))

    def commit(self, name: str, chunk: int, unit: Unit, fooling: Tensor | None) -> None:
        """Keep a unit, and the images that fool as long as there is room for them."""
        self.units[name, chunk] = unit
        if fooling is None or not any(unit.fooled):
            return
        taken = sum(images.nbytes for images, _ in self.pictures.values())
        if taken + fooling.nbytes <= self.most_bytes:
            where = [p for p, hit in zip(unit.positions, unit.fooled, strict=True) if hit]
            self.pictures[name, chunk] = fooling.cpu().contiguous(), where

    def images(self, name: str, chunk: int) -> tuple[Tensor, list[int]] | None:
        """The images (F, C, H, W) that an attack fooled the model with, and their positions; None if not kept."""
        return self.pictures.get((name, chunk))

    def keeps(self, name: str, chunk: int, unit: Unit) -> bool:
        """Always: what found no room is not made again."""
        return True

    def seconds(self) -> float:
        """Compute time, all processes together."""
        return float(sum(unit.seconds for unit in self.units.values()))

    def gather(self) -> None:
        """Give every process the units of all."""
        for units, pictures in distributed.gather((self.units, self.pictures)):
            self.units.update(units)
            self.pictures.update(pictures)

    def write_to(self, ledger: Ledger) -> None:
        """Commit everything to a ledger on the disk."""
        for (name, chunk), unit in self.units.items():
            images, _ = self.pictures.get((name, chunk), (None, []))
            ledger.commit(name, chunk, unit, images)
