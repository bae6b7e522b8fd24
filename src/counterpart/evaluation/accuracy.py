"""Clean and robust accuracy, from one row per image.

Results are written unit by unit (one attack on one chunk of images), so that a killed evaluation goes on
where it stopped.

The evaluator trusts no attack. Attacks search on a view of the model, which is a faster copy. A success
counts only if the original model in float32 is fooled by exactly the returned pixels, and if
``budget.contains`` says that these pixels are allowed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from .. import devices, distributed, hosts
from ..batch import Batch
from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, NamedAttack
from ..data.image_sets import ImageSet, content_fingerprint
from ..errors import UserError
from ..models.random_passes import seeded_passes
from ..progress import Bar, track
from ..seeding import Keys, derive
from .answers import as_judged, logits_of, predictions
from .batch_results import BatchResult, kept_images, read_columns, unit_of
from .batches import read_batch
from .drawn import DrawPlan, count_right
from .ledger import Ledger, LedgerRow, Unit
from .sampling import SamplePlan, tell_untried
from .survivors import Standing, Turn, rounds_of, take_turns
from .unchanged import remember
from .weights import weights_hash

# What autograd says where a model's answers have no gradient.
NO_GRADIENT = (
    "does not require grad",
    "appears to not have been used in the graph",
)

BudgetOf = Callable[[Batch], Budget]
"""A function from a batch of clean images to the budget, which says how far the attacker may change them."""

Budgets = BudgetOf | Mapping[float, BudgetOf]
"""The budgets of one radius, or a mapping from each of several rising radii to its budgets."""


@dataclass(frozen=True)
class Procedure:
    """How an evaluation goes about its work, whatever it measures.

    Attributes:
        chunk_size: the number of images in a chunk. One attack on one chunk is the unit that is committed.
        batch_size: the number of images that an attack meets at once.
        device: the device that computes.
        seed: the number that all randomness of the attacks is derived from.
        individual: whether each attack meets all images that the model gets right, so that the strength of
            each attack can be read on its own. Otherwise an attack meets only what earlier attacks left
            standing.
        save_images: whether the images that fool the model are kept, as float32; all attacked ones where they are
            judged by draws.
        draws: the number of answers to each image, of models whose answers are random; see ``evaluation.drawn``.
        votes: the number of passes that vote on each answer.
        sample: how dear attacks are tried on a sample of the survivors; None where they meet all of these.
    """

    chunk_size: int
    batch_size: int
    device: torch.device
    seed: int
    individual: bool = False
    save_images: bool = True
    draws: int = 1
    votes: int = 1
    sample: SamplePlan | None = None

    @property
    def by_draws(self) -> bool:
        """Whether images are judged by shares of draws, or by votes."""
        return self.draws > 1 or self.votes > 1


def evaluate(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    attacks: Sequence[NamedAttack],
    *,
    budget_of: Budgets,
    ledger: Ledger,
    procedure: Procedure,
    title: str = "evaluation",
    bar: Bar | None = None,
) -> list[LedgerRow]:
    """One row per image, after every attack has met every image that was still standing at its turn.

    An image stands while the model classifies it correctly and no attack has fooled the model with it.

    An attack may stop at an image that fools the view but not the model, because the image lies near the
    decision boundary or because the view computes in bf16. Then the attack runs once more on the model
    itself.

    Within a chunk, the images that an attack meets are packed into new batches, so that batches stay full as
    images fall. Under ``torchrun`` the chunks are dealt out to the processes. What a batch holds does not
    depend on the number of processes.

    With several radii, every attack runs at the smallest radius first. An image that fell there counts as
    fallen at the larger radii and is not attacked again. With ``individual`` this holds for each attack on
    its own: only the attack that felled the image passes it over.

    An attack with ``nearest`` looks for the nearest adversarial image. It runs once, at the smallest radius,
    and the images that it found are judged at every radius.

    Random draws are named by the attack, not by the radius: an image meets those that it meets at this radius alone.

    With ``procedure.sample``, the dear attacks wait until every process is through with all others, and meet only the
    survivors that the plan draws. Rows of the other survivors say ``untried``.

    Args:
        model: the original model, which judges in float32.
        view: the copy of the model that the attacks search on.
        images: the images to evaluate.
        attacks: the attacks in the order in which they run, the cheapest first. The first that fools the
            model with an image is named in its row.
        budget_of: how far the attacker may change the images; for several radii, a mapping from each radius
            to its budgets, rising.
        ledger: the ledger that receives the units, with ``chunks_of(images, procedure.chunk_size)`` chunks.
        procedure: the sizes, the device, the seed, and whether each attack is read on its own.
        title: the words before the progress bar.
        bar: the progress bar to advance, where several evaluations share one; by default it has its own.

    Returns:
        One row per image, in the order of the data set.

    Raises:
        UserError: there are no images, a label is no class of the model, an answer is not finite, the model
            changes while it is evaluated, or memory does not suffice. What is committed stays.
    """
    if len(images) == 0:
        raise UserError(f"the {images.split} split of {images.name} holds no images: nothing to evaluate.")
    budgets = by_radius(budget_of)
    is_unchanged = remember(model)
    _meet(model, images, ledger)
    mine = range(distributed.rank(), ledger.chunks, distributed.world_size())
    plan, standing = procedure.sample, Standing(len(images), procedure.individual)
    turns = take_turns(attacks, tuple(budgets), plan)
    whose = track(title, len(turns) * len(images)) if bar is None else nullcontext(bar)
    with whose as bar, devices.exact_float32(), devices.repeatable_convolutions():
        work = _Work(model, view, images, budgets, procedure, is_unchanged, bar)
        for number, turns_of_round in enumerate(rounds_of(turns)):
            if plan is not None and number > 0:
                standing.draw(plan, images.index, number)
            for turn in turns_of_round:
                bar.enter(f"{title}: {turn.unit} ({turns.index(turn) + 1} of {len(turns)})")
                for chunk in mine:
                    _see_through(work, turn, chunk, standing, ledger)
            ledger.gather()
            if plan is not None:
                standing.catch_up(turns_of_round, ledger, mine)
    units = units_of(attacks, tuple(budgets), plan)
    rows = ledger.rows(images.labels.tolist(), images.index.tolist(), list(units))
    return rows if plan is None else tell_untried(rows, standing.untried, units)


def _meet(model: nn.Module, images: ImageSet, ledger: Ledger) -> None:
    """Make sure that all processes judge the same, and have what earlier starts left on any host."""
    if distributed.world_size() == 1:
        return
    whose_images = content_fingerprint([images.fingerprint.encode(), images.index.cpu()])
    hosts.same_everywhere({"the weights": weights_hash(model), "the images": whose_images})
    ledger.gather()


def _see_through(work: "_Work", turn: Turn, chunk: int, standing: Standing, ledger: Ledger) -> None:
    """Make and commit the unit of a turn and a chunk, unless the ledger has it, and take away what fell."""
    first = chunk * work.procedure.chunk_size
    members = torch.arange(first, min(first + work.procedure.chunk_size, len(work.images)))
    tried, unit = standing.among(members, turn), ledger.read(turn.unit, chunk)
    passed_over = len(members)
    if turn.runs and len(tried) and not _is_made(ledger, turn, chunk, unit, work.procedure):
        unit, fooling = _make_unit(work, turn, tried)
        ledger.commit(turn.unit, chunk, unit, fooling)
        passed_over -= len(tried)
    work.bar.skip(passed_over * distributed.world_size())
    if unit is not None:
        standing.take(turn, unit)


def by_radius(budget_of: Budgets) -> dict[float | None, BudgetOf]:
    """A mapping from each radius, rising, to its budgets; an evaluation of one radius has the key None."""
    return {None: budget_of} if callable(budget_of) else {radius: budget_of[radius] for radius in budget_of}


def widest(budget_of: Budgets) -> BudgetOf:
    """The budgets of the largest radius."""
    return list(by_radius(budget_of).values())[-1]


def units_of(
    attacks: Sequence[NamedAttack], radii: Sequence[float | None], plan: SamplePlan | None = None
) -> dict[str, NamedAttack]:
    """A mapping from the name of each unit to its attack, ordered by attack and then by radius or round."""
    turns = take_turns(attacks, radii, plan)
    return {turn.unit: attack for attack in attacks for turn in turns if turn.attack is attack}


def _is_made(ledger: Ledger, turn: Turn, chunk: int, unit: Unit | None, procedure: Procedure) -> bool:
    """Whether a unit is in the ledger, together with its images where these are asked for."""
    if unit is None:
        return False
    return turn.attack is None or not procedure.save_images or ledger.keeps(turn.unit, chunk, unit)


def chunks_of(images: ImageSet, chunk_size: int) -> int:
    """The number of chunks that a set of images is cut into; the last chunk may be smaller."""
    return -(-len(images) // chunk_size)


@dataclass(frozen=True)
class _Work:
    """Everything that each turn of an evaluation needs; ``is_unchanged`` says whether the model is as at the start."""

    model: nn.Module
    view: Classifier
    images: ImageSet
    budgets: Mapping[float | None, BudgetOf]
    procedure: Procedure
    is_unchanged: Callable[[], Tensor]
    bar: Bar


def _make_unit(work: _Work, turn: Turn, positions: Tensor) -> tuple[Unit, Tensor | None]:
    """The unit that results from attacking the images at some positions, and the images that fool the model.

    The images are None where they are not to be kept.
    """
    started = time.monotonic()
    judged = _run(work, turn, positions)
    columns, unchanged = read_columns(judged, work.is_unchanged())
    if not unchanged:
        raise UserError(
            f"the model changed while it was evaluated by {turn.unit} (a forward pass writes into its "
            "weights or buffers): keep its layers in eval mode, or mend its forward. Nothing of this was kept."
        )
    unit = unit_of(judged, columns, time.monotonic() - started)
    return unit, kept_images(judged, unit) if work.procedure.save_images else None


def _run(work: _Work, turn: Turn, positions: Tensor) -> list[BatchResult]:
    """The results of a unit's batches, computed one after the other."""
    name, failed, device = turn.unit, 0, work.procedure.device
    judged = []
    for part in torch.split(positions, work.procedure.batch_size):
        try:
            judged.append(_attempt(work, turn, part))
            work.bar.advance(len(part) * distributed.world_size())  # the others are about as far
        except ValueError as error:  # labels, pixels and answers come from outside
            raise UserError(f"{name}: {error}") from error
        except (RuntimeError, MemoryError) as error:
            if any(words in str(error) for words in NO_GRADIENT):
                raise UserError(
                    f"{name}: the model's answers have no gradient (detach, no_grad, integers or quantised layers in "
                    "its forward?). Wrap that part in counterpart.straight_through, or ask for attacks without "
                    "gradients, such as --attacks square,rays."
                ) from error
            if not devices.is_out_of_memory(error):
                raise
            failed = len(part)
            break
    if failed:  # This stands outside of the handler, whose error would keep the failed batch's memory alive.
        fits = devices.size_that_fits(lambda size: _attempt(work, turn, positions[:size]), failed, device)
        advice = f"--evaluate.batch-size {fits} fits" if fits else "not even one image fits"
        raise UserError(f"Out of memory with {name} on batches of {failed}: {advice}.")
    return judged


def _attempt(work: _Work, turn: Turn, positions: Tensor) -> BatchResult:
    """The judged result of one turn on one batch, whose passes draw the same in every process and after every kill."""
    seed = derive(work.procedure.seed, name_batch(turn.unit, positions))
    with seeded_passes(work.model, seed, work.procedure.device):
        return _attempt_once(work, turn, positions)


def _attempt_once(work: _Work, turn: Turn, positions: Tensor) -> BatchResult:
    """The judged result of one turn on one batch."""
    named, device = turn.attack, work.procedure.device
    batch = read_batch(work.images, positions, device, with_parts=named is not None and named.parts)
    if named is None:
        check_unit_range(batch.images)
        logits = logits_of(work.model, batch.images)
        check_labels(batch.labels, logits.shape[1])
        answers, zero = logits.argmax(dim=1), torch.zeros_like(batch.labels)
        if work.procedure.by_draws:
            return _judge_by_draws(work, turn, positions, batch, Attacked(batch.images, zero, zero))
        return BatchResult(positions, answers, answers != batch.labels, zero, zero)
    radii = tuple(work.budgets) if named.nearest else (turn.radius,)
    budgets = [work.budgets[radius](batch) for radius in radii]
    keys = Keys(work.procedure.seed, named.name, batch.index)
    if work.procedure.by_draws:
        attacked = named.on(work.view, batch, budget=budgets[0], keys=keys)
        allowed = budgets[0].contains(attacked.images, batch.images)
        pixels = torch.where(allowed.view(-1, 1, 1, 1), attacked.images, batch.images)
        return _judge_by_draws(work, turn, positions, batch, replace(attacked, images=pixels))
    with devices.searching_in(getattr(work.view, "precision", "float32")):
        pixels, nearest, forwards, backwards = _search(named, work.view, batch, budgets, keys)
    answers, allowed = predictions(work.model, pixels), _allowed(budgets, pixels, batch)
    fooled = (answers != batch.labels) & allowed.any(dim=0)
    with torch.no_grad():
        claimed = work.view(pixels).argmax(dim=1) != batch.labels
    if len(radii) > 1:  # an image beyond all radii claims no success
        claimed &= allowed.any(dim=0)
    forwards, again = forwards + 1, claimed & ~fooled
    if bool(again.any()):  # These images fool the view alone, so the attack runs again on the model itself.
        part, narrowed = batch.select(again), [budget.select(again) for budget in budgets]
        with as_judged(work.model, device):
            second = _search(named, work.model, part, narrowed, keys[again])
        pixels[again], nearest[again] = second[:2]
        forwards[again], backwards[again] = forwards[again] + second[2], backwards[again] + second[3]
        answers[again] = predictions(work.model, second[0])
        allowed[:, again] = _allowed(narrowed, second[0], part)
        fooled = (answers != batch.labels) & allowed.any(dim=0)
    judged = BatchResult(positions, answers, fooled, forwards, backwards, pixels)
    if turn.radius is not None:
        smallest = torch.tensor(radii, dtype=torch.float64)[allowed.int().argmax(dim=0).cpu()]
        judged = replace(judged, radii=torch.where(fooled.cpu(), smallest, torch.nan))
    if named.nearest:
        judged = replace(judged, distances=_distances(work.model, nearest, batch, budgets[0]))
    return judged


def name_batch(unit: str, positions: Tensor) -> str:
    """The name of a unit's batch, after which what a model draws in it is seeded."""
    return f"passes/{unit}/{int(positions[0])}"


def _judge_by_draws(
    work: _Work, turn: Turn, positions: Tensor, batch: Batch, attacked: Attacked
) -> BatchResult:
    """The result of images that are judged by how many of several draws are right."""
    procedure = work.procedure
    counts = count_right(
        work.model, partial(logits_of, work.model), attacked.images, batch.labels,
        DrawPlan(procedure.draws, procedure.votes, procedure.seed), name_batch(turn.unit, positions),
    )  # fmt: skip
    fooled = counts.answers != batch.labels
    radii = None if turn.radius is None else torch.full(fooled.shape, turn.radius, dtype=torch.float64)
    return BatchResult(
        positions, counts.answers, fooled, attacked.forwards, attacked.backwards,
        None if turn.attack is None else attacked.images, radii, first=counts.first, fresh=counts.fresh,
    )  # fmt: skip


def _search(
    named: NamedAttack, model: Classifier, batch: Batch, budgets: Sequence[Budget], keys: Keys
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What one run of an attack in the smallest budget returns.

    Returns:
        The images to judge, the nearest adversarial images, and the numbers (B,) of forward and of backward
        passes.
    """
    attacked = named.on(model, batch, budget=budgets[0], keys=keys)
    nearest = attacked.nearest if named.nearest else attacked.images
    if nearest is None:
        raise ValueError(
            "it is said to look for the nearest adversarial image, and returns no Attacked.nearest."
        )
    pixels = attacked.images if len(budgets) == 1 else nearest
    return pixels.clone(), nearest.clone(), attacked.forwards, attacked.backwards.clone()


def _allowed(budgets: Sequence[Budget], pixels: Tensor, batch: Batch) -> Tensor:
    """Whether each of R budgets allows each of B images, as (R, B)."""
    return torch.stack([budget.contains(pixels, batch.images) for budget in budgets])


def _distances(model: nn.Module, nearest: Tensor, batch: Batch, budget: Budget) -> Tensor:
    """The distance (B,) of each image that fools the original model; infinite where it does not.

    The distance is measured here, since what the attack says about it is not trusted.
    """
    length = budget.distance(nearest, batch.images) * budget.size(batch.images)
    return torch.where(predictions(model, nearest) != batch.labels, length, torch.inf)
