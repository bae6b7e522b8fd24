"""The order in which attacks take turns, and the images that still stand at each turn.

Every attack runs at the smallest radius, then at the next. An image stands while no attack has fooled the
model with it. An image that fell at a smaller radius counts as fallen at every larger one, and is not
attacked again.

An attack that looks for the nearest adversarial image runs once, at the smallest radius. The images that it
finds are judged at every radius.

Where dear attacks are tried on a sample, they take their turns last, in one round or in several. A round begins when
everything before it is known of all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ..contracts import NamedAttack
from ..numerals import readable
from .ledger import CLEAN, Ledger, Unit
from .sampling import SamplePlan


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
        round: the round of a sample that the turn belongs to, from 1; 0 for turns that meet all that stands.
    """

    attack: NamedAttack | None = None
    radius: float | None = None
    unit: str = CLEAN
    runs: bool = True
    round: int = 0


def take_turns(
    attacks: Sequence[NamedAttack], radii: Sequence[float | None], plan: SamplePlan | None = None
) -> list[Turn]:
    """The turns in order: the clean images, then all attacks at the smallest radius, then all at the next.

    With a ``plan``, there is one radius, and the dear attacks follow behind all others, round after round.

    Args:
        attacks: the attacks in the order in which they run.
        radii: the radii, rising; ``(None,)`` for an evaluation of one radius, whose units are named by the
            attack alone.
        plan: how dear attacks are tried on a sample; None where all attacks meet all that stands.
    """
    turns = [Turn()]
    if plan is not None:
        turns += [Turn(attack, None, attack.name) for attack in attacks if attack.name not in plan.dear]
        dear = [attack for attack in attacks if attack.name in plan.dear]
        for number in range(1, plan.rounds + 1):
            turns += [Turn(attack, None, plan.unit_of(attack.name, number), round=number) for attack in dear]
        return turns
    for number, radius in enumerate(radii):
        for attack in attacks:
            if attack.nearest or radius is None:
                turns.append(Turn(attack, radius, attack.name, runs=number == 0))
            else:
                turns.append(Turn(attack, radius, f"{attack.name} at {readable(radius)}"))
    return turns


def rounds_of(turns: Sequence[Turn]) -> list[list[Turn]]:
    """The turns in groups: those that meet all that stands, and then those of each round of a sample."""
    return [list(group) for _, group in groupby(turns, key=lambda turn: turn.round)]


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
        # Of a sample: the survivors of the cheap attacks, in the order of the draw, and whom the present round tries.
        self.survivors = torch.zeros(0, dtype=torch.int64)
        self.drawn = torch.zeros(images, dtype=torch.bool)
        self.untried = torch.zeros(images, dtype=torch.bool)

    def among(self, members: Tensor, turn: Turn) -> Tensor:
        """Those of the given positions whose images the attack of a turn meets."""
        meets = self.right & ~self._fallen_to(turn)
        if turn.round:
            meets &= self.drawn
        return members[meets[members]]

    def draw(self, plan: SamplePlan, index: Tensor, number: int) -> None:
        """Begin a round of a sample, once all that was tried before it is taken, of all images.

        Args:
            plan: the plan of the sample.
            index: the data-set indices (N,) of all images.
            number: the number of the round, from 1.
        """
        fallen = self._fallen_to(Turn())
        if number == 1:
            order = plan.in_order(index)
            self.survivors = order[(self.right & ~fallen)[order]]
            self.untried[self.survivors] = True
        begin, end = plan.share_of_round(len(index), fallen[self.survivors].tolist(), number)
        self.drawn[:] = False
        self.drawn[self.survivors[begin:end]] = True
        self.untried &= ~self.drawn

    def catch_up(self, turns: Sequence[Turn], ledger: Ledger, mine: Sequence[int]) -> None:
        """Take away what fell in turns that other processes saw through: in all chunks but those of this process."""
        for turn in turns:
            for chunk in range(ledger.chunks):
                unit = None if chunk in mine else ledger.read(turn.unit, chunk)
                if unit is not None:
                    self.take(turn, unit)

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
