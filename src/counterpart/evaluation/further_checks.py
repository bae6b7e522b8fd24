"""The checks of an audit beyond the five behaviours: doubts, traces, planted images and a retry.

Each of them can fail where the attacks are too weak to say anything, and passing is necessary, not sufficient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..batch import Batch
from ..budget import Budget
from ..contracts import Classifier
from ..models.lossy_pieces import StandIn, find_lossy_pieces
from ..seeding import Keys
from . import failure_indicators, planted
from .attack_traces import Trace, joined, reachable, trace_pgd
from .ledger import LedgerRow
from .masking_checks import NOISE, Behaviour, beyond_luck, with_its_basis
from .model_checks import model_doubts

NECESSARY = (
    "Passing is necessary, not sufficient: an audit tries known ways in which attacks fail, and cannot show that no "
    "stronger attack exists. Attack the defence as one who knows it would (Carlini et al. 2019, arXiv 1902.06705)."
)
LONGER = 4  # times as many steps, where failed attacks had not come to rest
FEW = 32  # images that lossy pieces are looked for with


@dataclass(frozen=True)
class Effort:
    """How much the further checks do.

    Attributes:
        steps: the gradient steps of PGD.
        draws: the random points that the random search tries for each image.
        points: the points inside each budget that a planted image is told from.
    """

    steps: int
    draws: int
    points: int


@dataclass(frozen=True)
class Checked:
    """What the further checks measured, and the passes that they cost, over all images."""

    behaviours: Sequence[Behaviour]
    forwards: int
    backwards: int


class Reachable(nn.Module):
    """A model whose answers have a graph to the images, with a gradient of 0 where they had none."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """The class logits (B, K)."""
        return reachable(self.model(images), images)


def check(
    model: nn.Module,
    view: Classifier,
    batches: Sequence[Batch],
    fallen: Tensor,
    budget: Budget,
    seed: int,
    effort: Effort,
) -> Checked:
    """Doubts about a model, the traces of PGD against it, and whether PGD finds planted adversarial images.

    Args:
        model: the original model.
        view: the copy of it that attacks search on.
        batches: images that the model classifies correctly; at least one.
        fallen: (B,) whether PGD or APGD felled each of them.
        budget: one budget for all of them.
        seed: what all draws come from.
        effort: how much is done.
    """
    images = []

    def trace_all(steps: int) -> Trace:
        keys = [Keys(seed, "audit", batch.index).fold("trace") for batch in batches]
        pairs = zip(batches, keys, strict=True)
        return joined([trace_pgd(model, view, batch, budget, key, steps=steps) for batch, key in pairs])

    for batch in batches:
        keys = Keys(seed, "audit", batch.index)
        images.append(
            planted.plant(
                model, batch, budget, keys.fold("planted"),
                steps=effort.steps, points=effort.points, draws=effort.draws,
            )
        )  # fmt: skip
    trace, test, n = trace_all(effort.steps), planted.joined(images), sum(len(batch) for batch in batches)
    restless = failure_indicators.restless_share(trace) > NOISE
    longer = trace_all(LONGER * effort.steps) if restless else None
    convergence = failure_indicators.convergence(trace, longer, fallen)
    behaviours = [
        with_its_basis(planted.behaviour_of(test), int(test.exists.sum())),
        with_its_basis(convergence, n),
        *(with_its_basis(behaviour, n) for behaviour in failure_indicators.behaviours_of(trace)),
        _doubts(model, view, batches[0]),
    ]
    passes = [
        (outcome.forwards, outcome.backwards) for outcome in (trace, longer, test) if outcome is not None
    ]
    forwards, backwards = (n * sum(column) for column in zip(*passes, strict=True))
    return Checked(behaviours, forwards, backwards)


def _doubts(model: nn.Module, view: Classifier, batch: Batch) -> Behaviour:
    name = "the model raises no doubts"
    if len(batch) < 2:
        return Behaviour(name, {}, None, "not enough images to tell: 1 of at least 2", len(batch))
    doubts = model_doubts(model, view, batch)
    texts = {doubt.name: doubt.text for doubt in reversed(doubts)}  # of several with a name the first
    words = " ".join(f"{title}: {text}" for title, text in reversed(texts.items()))
    return Behaviour(
        "the model raises no doubts", {}, not doubts, words or "none of the known ones", len(batch)
    )


def retry(
    model: nn.Module,
    batch: Batch,
    budget: Budget,
    seed: int,
    before: Sequence[LedgerRow],
    attack: Callable[[Classifier], Sequence[LedgerRow]],
) -> Behaviour:
    """Whether PGD fools more images through straight-through gradients (BPDA, arXiv 1802.00420).

    Args:
        model: the original model, on which every success is judged again in float32.
        batch: some images.
        budget: the budget.
        seed: what the moved images are drawn from.
        before: the rows of PGD against the model.
        attack: a function that runs the same PGD on a view, and returns its rows.
    """
    name = "straight-through gradients find nothing new"
    moved = budget.select(slice(FEW)).sample(
        batch.images[:FEW], Keys(seed, "audit", batch.index[:FEW]).fold("lossy")
    )
    pieces = find_lossy_pieces(model, moved)
    if not pieces:
        return Behaviour(name, {}, True, "no piece of the model loses information in its backward pass")
    listed = ", ".join(str(piece) for piece in pieces)
    if not all(piece.can_be_passed for piece in pieces):
        words = f"{listed} jumps where gradients say otherwise: wrap it in counterpart.straight_through, with backward="
        return Behaviour(name, {}, False, words)
    return _compared(name, listed, before, attack(StandIn(model, pieces)))


def _compared(name: str, listed: str, before: Sequence[LedgerRow], after: Sequence[LedgerRow]) -> Behaviour:
    pairs = [(first, second) for first, second in zip(before, after, strict=True) if first.right]
    fell = sum("PGD" in first.fooled for first, _ in pairs) / len(pairs)
    through = sum("PGD" in second.fooled for _, second in pairs) / len(pairs)
    new = sum("PGD" in second.fooled and "PGD" not in first.fooled for first, second in pairs) / len(pairs)
    numbers = {"PGD": fell, "PGD, straight-through": through, "straight-through alone": new}
    honest = not beyond_luck(new, len(pairs))
    words = (
        f"past {listed} attacks find nothing new"
        if honest
        else f"gradients are lost in {listed}: past it PGD fools {new:.1%} more, {fell + new:.1%} in all"
    )
    return Behaviour(name, numbers, honest, words, len(pairs))
