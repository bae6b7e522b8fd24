"""Dear attacks on a sample of the survivors: who is tried, and what that says of all.

The cheap attacks meet all images. A key per data-set index orders the images beforehand, whatever the attacks find,
and the dear attacks are tried on the first survivors in that order. With ``auto`` they go on in rounds until the
interval is narrow enough.

Who is tried follows from the ledger's units alone. So an evaluation that was killed goes on with the same images,
every process tries its share of them, and ``verify`` derives them again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from ..contracts import NamedAttack
from ..estimates import Estimate, estimate_accuracy, look_sizes
from ..records import WORST
from ..seeding import Keys
from .ledger import LedgerRow


@dataclass(frozen=True)
class SamplePlan:
    """Everything that decides which survivors the dear attacks are tried on, but for which images survive.

    Attributes:
        count: the number of survivors to try, or "auto" for rounds.
        dear: the names of the attacks that are tried on them alone.
        seed: the number that the order of the images is drawn from.
        width: for rounds, the width of the interval of these images at which no further round begins.
        looks: for rounds, how often at most that width is looked at. The error of the interval is split over them.
    """

    count: int | Literal["auto"]
    dear: tuple[str, ...]
    seed: int
    width: float = 1.0
    looks: int = 1

    @property
    def rounds(self) -> int:
        """How many rounds there may be: behind the last look, all survivors are tried."""
        return self.looks + 1 if self.count == "auto" else 1

    def unit_of(self, attack: str, number: int) -> str:
        """The name of an attack's units in a round."""
        return attack if number == 1 else f"{attack} round {number}"

    def units_of(self, attack: str) -> list[str]:
        """The names that units of an attack may have, of all rounds."""
        return [self.unit_of(attack, number) for number in range(1, self.rounds + 1)]

    def in_order(self, index: Tensor) -> Tensor:
        """The positions (N,) of the images in the order in which they are tried, from their data-set indices (N,)."""
        drawn = Keys(self.seed, "sample", index.cpu()).bits(0, (1,))[:, 0]
        # By their indices first, so that equal keys, should there be any, have an order too.
        by_index = index.cpu().argsort(stable=True)
        return by_index[drawn[by_index].argsort(stable=True)]

    def share_of_round(self, images: int, falls: Sequence[bool], number: int) -> tuple[int, int]:
        """The survivors that a round tries, as the begin and the end of a range in the order of the draw.

        The range is empty where an earlier round was enough.

        Args:
            images: how many images are evaluated.
            falls: for each image that stands before the dear attacks, in the order of the draw, whether it is known to
                have fallen to one of them.
            number: the number of the round, from 1.
        """
        sizes = self._sizes(images, len(falls))
        begin = 0
        for size in sizes[: number - 1]:
            begin = size
            measured = estimate_accuracy(images, len(falls), size, sum(falls[:size]), self.looks)
            if measured.width <= self.width:
                return begin, begin
        return begin, sizes[number - 1] if number <= len(sizes) else begin

    def _sizes(self, images: int, survivors: int) -> list[int]:
        """How many survivors are tried once each round is through."""
        if self.count == "auto":
            return look_sizes(images, survivors, self.width, self.looks)
        return [min(self.count, survivors)]

    def to_identity(self) -> dict[str, Any]:
        """What enters the identity of a ledger."""
        stated = {"count": self.count, "dear": list(self.dear), "seed": self.seed}
        return stated | ({"width": self.width, "looks": self.looks} if self.count == "auto" else {})

    @classmethod
    def from_identity(cls, stated: Mapping[str, Any]) -> "SamplePlan":
        """The plan of a ledger, from what ``to_identity`` wrote."""
        return cls(**{**stated, "dear": tuple(stated["dear"])})


def cheap_first(attacks: Sequence[NamedAttack], plan: SamplePlan | None) -> list[NamedAttack]:
    """The attacks in the order in which they run: as they are listed, but for dear ones, which run last."""
    return sorted(attacks, key=lambda attack: plan is not None and attack.name in plan.dear)


@dataclass(frozen=True)
class SampleOutcome:
    """What the dear attacks showed on a sample.

    Attributes:
        survivors: how many images stood before them.
        tried: how many of these were tried.
        fell: for each line of a table that holds dear attacks, and for "worst case", how many of those tried fell up
            to it.
        estimates: for the same names, the estimated accuracy on all images.
    """

    survivors: int
    tried: int
    fell: Mapping[str, int]
    estimates: Mapping[str, Estimate]

    @property
    def complete(self) -> bool:
        """Whether every survivor was tried, so that nothing is estimated."""
        return self.tried == self.survivors


def read_sample(rows: Sequence[LedgerRow], attacks: Sequence[NamedAttack], plan: SamplePlan) -> SampleOutcome:
    """What the rows of a sampled evaluation say of all images.

    Args:
        rows: the rows of all images.
        attacks: the attacks in the order in which they ran, the dear ones last.
        plan: what was tried on whom.
    """
    before = [row for row, survived in zip(rows, _survived(rows, attacks, plan), strict=True) if survived]
    tried = [row for row in before if not row.untried]
    so_far: set[str] = set()
    fell = {}
    for line in dict.fromkeys(attack.line for attack in attacks if attack.name in plan.dear):
        so_far |= {attack.name for attack in attacks if attack.line == line}
        fell[line] = sum(not so_far.isdisjoint(row.fooled) for row in tried)
    fell[WORST] = sum(bool(row.fooled) for row in tried)
    estimates = {
        name: estimate_accuracy(len(rows), len(before), len(tried), count, plan.looks)
        for name, count in fell.items()
    }
    return SampleOutcome(len(before), len(tried), fell, estimates)


def weigh_rows(rows: Sequence[LedgerRow], attacks: Sequence[NamedAttack], plan: SamplePlan) -> list[float]:
    """How many images each row stands for: a survivor that was tried also for those that were not, which count 0."""
    before = _survived(rows, attacks, plan)
    tried = sum(survived and not row.untried for row, survived in zip(rows, before, strict=True))
    weights = []
    for row, survived in zip(rows, before, strict=True):
        if row.untried:
            weights.append(0.0)
        else:
            weights.append(sum(before) / tried if survived else 1.0)
    return weights


def _survived(rows: Sequence[LedgerRow], attacks: Sequence[NamedAttack], plan: SamplePlan) -> list[bool]:
    """Whether each image stands before the dear attacks."""
    cheap = {attack.name for attack in attacks if attack.name not in plan.dear}
    return [row.right and cheap.isdisjoint(row.fooled) for row in rows]


def tell_untried(
    rows: Sequence[LedgerRow], untried: Tensor, units: Mapping[str, NamedAttack]
) -> list[LedgerRow]:
    """The rows, of which some are said to be untried, with names of attacks in place of names of their units.

    Args:
        rows: the rows of the N images, as the units say.
        untried: (N,) whether each image stands before the dear attacks and was not drawn for them.
        units: a mapping from the name of each unit to its attack.
    """
    stated = []
    for row, was_not_tried in zip(rows, untried.tolist(), strict=True):
        fooled = tuple(units[unit].name for unit in row.fooled)
        distances = {units[unit].name: distance for unit, distance in row.distances.items()}
        stated.append(replace(row, fooled=fooled, distances=distances, untried=was_not_tried))
    return stated
