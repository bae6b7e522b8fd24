"""The order in which attacks take turns, and the images that still stand at each turn.

Every attack runs at the smallest radius, then at the next. An image stands while no attack has fooled the
model with it. An image that fell at a smaller radius counts as fallen at every larger one, and is not
attacked again.

An attack that looks for the nearest adversarial image runs once, at the smallest radius. The images that it
finds are judged at every radius.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..contracts import NamedAttack
from ..numerals import readable
from .ledger import CLEAN, Unit


@dataclass(frozen=True)
class Turn:
    """One attack at one radius.

    Attributes:
        attack: the attack, or None for the turn that judges the clean images.
        radius: the radius, in the unit of the images; None where an evaluation has only one.
        unit: the name of its units in the ledger, such as "PGD-20", or "PGD-20 at 4/255" where there are
            several radii.
        runs: whether the attack runs in this turn. If not, the images that it found in an earlier turn are
            judged at this radius.
    """

    attack: NamedAttack | None = None
    radius: float | None = None
    unit: str = CLEAN
    runs: bool = True


def take_turns(attacks: Sequence[NamedAttack], radii: Sequence[float | None]) -> list[Turn]:
    """The turns in order: the clean images, then all attacks at the smallest radius, then all at the next.

    Args:
        attacks: the attacks in the order in which they run.
        radii: the radii, rising; ``(None,)`` for an evaluation of one radius, whose units are named by the
            attack alone.
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
    """The images that still stand, updated turn by turn."""

    def __init__(self, images: int, individual: bool) -> None:
        """Start with every image standing.

        Args:
            images: the number of images.
            individual: whether an attack meets also what other attacks felled, and passes over only what it
                felled itself.
        """
        self.individual = individual
        self.right = torch.ones(images, dtype=torch.bool)
        self.fallen: dict[str, Tensor] = {}

    def among(self, members: Tensor, turn: Turn) -> Tensor:
        """Those of the given positions whose images the attack of a turn meets."""
        return members[(self.right & ~self._fallen_to(turn))[members]]

    def take(self, turn: Turn, unit: Unit) -> None:
        """Take away the images that fell in this turn."""
        fallen = torch.tensor(unit.fallen_within(turn.radius), dtype=torch.int64)
        if turn.attack is None:
            self.right[fallen] = False
        else:
            self._fallen_to(turn)[fallen] = True

    def _fallen_to(self, turn: Turn) -> Tensor:
        """Whether each image fell to the attack of a turn, or to any attack unless ``individual`` is set."""
        whose = turn.attack.name if turn.attack and self.individual else ""
        return self.fallen.setdefault(whose, torch.zeros_like(self.right))
