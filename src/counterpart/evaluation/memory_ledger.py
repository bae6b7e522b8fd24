"""A ledger that is kept in memory, for an evaluation that writes no folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import distributed
from .ledger import Ledger, Unit

MOST_BYTES = 2**31  # memory for images that fooled the model; images beyond it are not kept

Place = tuple[str, int]
"""The name of an attack and the number of a chunk."""


@dataclass(frozen=True)
class MemoryLedger(Ledger):
    """The units of one evaluation in memory, with the same methods as ``Ledger``.

    Attributes:
        most_bytes: how many bytes of memory the images that fooled the model may take.
        units: the units that were committed.
        pictures: the images that fooled the model and their positions, as far as they were kept.
        radii: the radius planes (N, 1 or C, H, W) of a mask-aware evaluation and the data-set indices (N,) of
            their images; empty until they are drawn.
    """

    folder: Path = Path()
    chunks: int = 0
    most_bytes: int = MOST_BYTES
    units: dict[Place, Unit] = field(default_factory=dict)
    pictures: dict[Place, tuple[Tensor, list[int]]] = field(default_factory=dict)
    radii: list[Tensor] = field(default_factory=list)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Do nothing, since there is no folder to make."""

    def read(self, name: str, chunk: int) -> Unit | None:
        """The unit of an attack and a chunk, or None where it was not made."""
        return self.units.get((name, chunk))

    def commit(self, name: str, chunk: int, unit: Unit, fooling: Tensor | None) -> None:
        """Keep a unit, and the images that fool the model as long as there is room for them."""
        self.units[name, chunk] = unit
        if fooling is None or not unit.with_images:
            return
        taken = sum(images.nbytes for images, _ in self.pictures.values())
        if taken + fooling.nbytes <= self.most_bytes:
            self.pictures[name, chunk] = fooling.cpu().contiguous(), unit.with_images

    def images(self, name: str, chunk: int) -> tuple[Tensor, list[int]] | None:
        """The images (F, C, H, W) that fooled the model and their positions, or None if they are not kept."""
        return self.pictures.get((name, chunk))

    def keeps(self, name: str, chunk: int, unit: Unit) -> bool:
        """True, always: images that found no room are not made again."""
        return True

    def seconds(self) -> float:
        """The compute time in seconds, summed over all units and processes."""
        return float(sum(unit.seconds for unit in self.units.values()))

    def gather(self) -> None:
        """Give every process the units of all processes."""
        distributed.barrier()  # a chunk may take some of them far longer
        for units, pictures in distributed.gather((self.units, self.pictures)):
            self.units.update(units)
            self.pictures.update(pictures)

    def write_to(self, ledger: Ledger) -> None:
        """Commit all units to another ledger, such as one on the disk."""
        for (name, chunk), unit in self.units.items():
            images, _ = self.pictures.get((name, chunk), (None, []))
            ledger.commit(name, chunk, unit, images)
