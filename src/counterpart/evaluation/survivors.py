"""Who attacks whom, and when: every attack in turn at each radius, on the images that still stand.

An image that fell at a smaller radius counts as fallen at every larger one, and is not attacked again. An attack that
looks for the nearest adversarial image runs once, at the smallest radius, and its images are judged at all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..numerals import readable
from ..protocols import NamedAttack
from .ledger import CLEAN, Unit


@dataclass(frozen=True)
class Turn:
    """An attack at a radius.

    Attributes:
        attack: who; None for the clean images.
        radius: at which; None where an evaluation has only one.
        unit: the name of its units in the ledger: "PGD-20", and of several radii "PGD-20 at 4/255".
        runs: whether it attacks. If not, it reads what it found when it ran, and judges it by this radius.
    """

    attack: NamedAttack | None = None
    radius: float | None = None
    unit: str = CLEAN
    runs: bool = True


def take_turns(attacks: Sequence[NamedAttack], radii: Sequence[float | None]) -> list[Turn]:
    """The turns of all attacks at the smallest radius, then those at the next; clean images come first.

    Args:
        attacks: in order.
        radii: rising; ``(None,)`` for a single one, which no name of a unit holds.
    """
    turns = [Turn()]
    for number, radius in enumerate(radii):
        for attack in attacks:
            if attack.nearest or radius is None:
                turns.append(Turn(attack, radius, attack.name, runs=number == 0))
            else:
                turns.append(Turn(attack, radius, f"{attack.name} at {readable(radius)}"))
    return turns


class Standing:
    """Which images still stand, turn by turn."""

    def __init__(self, images: int, individual: bool) -> None:
        """All of them.

        Args:
            images: how many.
            individual: whether an attack meets all but those that it felled itself.
        """
        self.individual = individual
        self.right = torch.ones(images, dtype=torch.bool)
        self.fallen: dict[str, Tensor] = {}

    def among(self, members: Tensor, turn: Turn) -> Tensor:
        """Those of some positions that a turn meets."""
        return members[(self.right & ~self._fallen_to(turn))[members]]

    def take(self, turn: Turn, unit: Unit) -> None:
        """Take away what fell in this turn."""
        fallen = torch.tensor(unit.fallen_within(turn.radius), dtype=torch.int64)
        if turn.attack is None:
            self.right[fallen] = False
        else:
            self._fallen_to(turn)[fallen] = True

    def _fallen_to(self, turn: Turn) -> Tensor:
        whose = turn.attack.name if turn.attack and self.individual else ""
        return self.fallen.setdefault(whose, torch.zeros_like(self.right))
