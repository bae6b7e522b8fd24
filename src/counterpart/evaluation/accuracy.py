"""Clean and robust accuracy: a row per image, committed unit by unit, so that a killed evaluation goes on.

The evaluator trusts nobody. Attacks search on a fast view of the model; a success counts only if the original
model in float32 is fooled by exactly these pixels and ``budget.contains`` holds.
"""

import csv
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import devices, distributed
from ..batch import Batch
from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..data.transforms import as_floats
from ..errors import NotFinite, UserError
from ..models.modes import eval_mode
from ..numerals import readable
from ..progress import track
from ..protocols import Attack, Classifier, NamedAttack
from ..records import Record
from ..rundir import write_atomically
from ..seeding import Keys
from ..statistics import wilson
from .ledger import CLEAN, Ledger, LedgerRow, Unit, weights_hash
from .survivors import Standing, Turn, take_turns

NO_GRADIENT = (
    "does not require grad",
    "appears to not have been used in the graph",
)  # what autograd says then

BudgetOf = Callable[[Batch], Budget]
"""Clean images -> what the attacker may do to them."""

Budgets = BudgetOf | Mapping[float, BudgetOf]
"""Of one radius, or of each of several, rising."""


@dataclass(frozen=True)
class Procedure:
    """How an evaluation goes about its work, whatever it measures.

    Attributes:
        chunk_size: images of a chunk: with one attack, the unit that is committed.
        batch_size: images that an attack meets at once.
        device: where to compute.
        seed: of the attacks' randomness.
        individual: let each attack meet all images that the model gets right, so that its own strength can be read.
        save_images: keep the images that fool the model, as float32.
    """

    chunk_size: int
    batch_size: int
    device: torch.device
    seed: int
    individual: bool = False
    save_images: bool = True


@contextmanager
def as_judged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside the block the model is what judges: in eval mode, in float32, without autocast. Its modes are put back."""
    with eval_mode(model), torch.autocast(device.type, enabled=False), devices.exact_float32():
        yield


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, K) by the original model."""
    with as_judged(model, images.device):
        logits = model(images.float())
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"the model returns {type(logits).__name__}; expected a tensor of ({len(images)}, K) logits."
        )
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"the model returns shape {tuple(logits.shape)}; expected ({len(images)}, K) logits."
        )
    if not bool(logits.isfinite().all()):
        raise NotFinite("the model returns logits that are not finite; it cannot be evaluated.")
    return logits


def predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Classes (B,) by the original model."""
    return logits_of(model, images).argmax(dim=1)


def judge(
    model: nn.Module, attacked: Tensor, clean: Tensor, labels: Tensor, budget: Budget
) -> tuple[Tensor, Tensor]:
    """Whether each image counts as fooled (B,), and the predicted classes (B,)."""
    answers = predictions(model, attacked)
    return (answers != labels) & budget.contains(attacked, clean), answers


def quick(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    *,
    budget_of: BudgetOf,
    attack: Attack,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> tuple[float, float]:
    """(clean, robust) accuracy by one attack, for validation during training; shared between processes."""
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    for batch in batches(images, batch_size=batch_size, device=device):
        if len(batch) == 0:  # a small last batch may leave a process without images
            continue
        right, held = _right_and_held(model, view, batch, budget_of, attack, seed)
        counts += torch.stack([right.sum(), held.sum(), torch.tensor(len(batch), device=device)])
    distributed.sum_([counts])
    right_n, held_n, n = counts.tolist()
    return right_n / n, held_n / n


def _right_and_held(
    model: nn.Module, view: Classifier, batch: Batch, budget_of: BudgetOf, attack: Attack, seed: int
) -> tuple[Tensor, Tensor]:
    right = predictions(model, batch.images) == batch.labels
    held = right.clone()
    if right.any():
        tried = batch.select(right)
        budget = budget_of(tried)
        keys = Keys(seed, "validation", tried.index)
        attacked = attack(view, tried.images, tried.labels, budget=budget, keys=keys)
        held[right] = ~judge(model, attacked.images, tried.images, tried.labels, budget)[0]
    return right, held


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
) -> list[LedgerRow]:
    """Every attack on every image that is still classified correctly when its turn comes.

    Where an attack stopped at an image that fools the view and not the model (near the boundary, or in bf16), it is run
    once more, on the model itself. Within a chunk, the images that an attack meets are packed into batches anew, so
    that batches stay full as images fall. Under ``torchrun`` chunks are dealt out over processes; what a batch holds
    does not depend on that.

    Of several radii the smallest comes first, with every attack. What fell there counts as fallen at the larger ones,
    and is not attacked again (with ``individual``, not by the same attack). An attack with ``nearest`` runs once, at
    the smallest radius, and each radius judges the nearest images that it found. Draws are named by the attack alone:
    at every radius an image meets those that it would meet in an evaluation of this radius.

    Args:
        model: the original, judged in float32.
        view: what the attacks search on.
        images: what to evaluate.
        attacks: in the order in which "first" is meant; cheapest first.
        budget_of: what the attacker may do; of several radii, a mapping from each to that, rising.
        ledger: where units go; of ``chunks_of(images, procedure.chunk_size)`` chunks.
        procedure: sizes, device, seed, and whether attacks are read alone.
        title: words before the progress bar.

    Returns:
        A row per image, in data-set order.

    Raises:
        UserError: no images, labels that the model does not have, answers that are not finite, a model that changes
            while it is evaluated, or no memory. What is committed stays.
    """
    if len(images) == 0:
        raise UserError(f"the {images.split} split of {images.name} holds no images: nothing to evaluate.")
    budgets = by_radius(budget_of)
    work = _Work(model, view, images, budgets, procedure, weights_hash(model))
    mine = range(distributed.rank(), ledger.chunks, distributed.world_size())
    turns, standing = take_turns(attacks, tuple(budgets)), Standing(len(images), procedure.individual)
    with track(title, len(turns) * len(images)) as bar, devices.exact_float32():
        for turn in turns:
            bar.describe(f"{title}: {turn.unit}")
            for chunk in mine:
                first = chunk * procedure.chunk_size
                members = torch.arange(first, min(first + procedure.chunk_size, len(images)))
                tried, unit = standing.among(members, turn), ledger.read(turn.unit, chunk)
                if turn.runs and len(tried) and not _is_made(ledger, turn, chunk, unit, procedure):
                    unit, fooling = _make_unit(work, turn, tried)
                    ledger.commit(turn.unit, chunk, unit, fooling)
                if unit is not None:
                    standing.take(turn, unit)
                bar.advance(len(members))
    distributed.barrier()
    ledger.gather()
    names = units_of(attacks, tuple(budgets))
    return ledger.rows(images.labels.tolist(), images.index.tolist(), list(names))


def by_radius(budget_of: Budgets) -> dict[float | None, BudgetOf]:
    """The budgets of each radius, rising; of a single one under None."""
    return {None: budget_of} if callable(budget_of) else {radius: budget_of[radius] for radius in budget_of}


def widest(budget_of: Budgets) -> BudgetOf:
    """The budgets of the largest radius."""
    return list(by_radius(budget_of).values())[-1]


def units_of(attacks: Sequence[NamedAttack], radii: Sequence[float | None]) -> dict[str, NamedAttack]:
    """{name of a unit: its attack}, attack by attack and radius by radius."""
    turns = take_turns(attacks, radii)
    return {turn.unit: attack for attack in attacks for turn in turns if turn.attack is attack}


def _is_made(ledger: Ledger, turn: Turn, chunk: int, unit: Unit | None, procedure: Procedure) -> bool:
    """Whether a unit is there, and its images if they are asked for."""
    if unit is None:
        return False
    return turn.attack is None or not procedure.save_images or ledger.keeps(turn.unit, chunk, unit)


def chunks_of(images: ImageSet, chunk_size: int) -> int:
    """How many chunks a set has."""
    return -(-len(images) // chunk_size)


@dataclass(frozen=True)
class _Work:
    """All that every turn needs."""

    model: nn.Module
    view: Classifier
    images: ImageSet
    budgets: Mapping[float | None, BudgetOf]
    procedure: Procedure
    weights: str


@dataclass(frozen=True)
class _Found:
    """What one batch came to. For the clean images, "fooled" are those that are wrong anyway."""

    positions: Tensor
    answers: Tensor
    fooled: Tensor
    forwards: Tensor
    backwards: Tensor
    images: Tensor | None = None
    radii: Tensor | None = None
    distances: Tensor | None = None


def _make_unit(work: _Work, turn: Turn, positions: Tensor) -> tuple[Unit, Tensor | None]:
    """Attack the images at some positions; the unit, and the images that fool where they are to be kept."""
    started = time.monotonic()
    judged = _run(work, turn, positions)
    unit = _unit(judged, time.monotonic() - started)
    if weights_hash(work.model) != work.weights:
        raise UserError(
            f"the model changed while it was evaluated by {turn.unit} (a forward pass writes into its "
            "weights or buffers): call eval() in it, or mend its forward. Nothing of this was kept."
        )
    fooling = [f.images[f.fooled] for f in judged if f.images is not None]
    return unit, torch.cat(fooling) if work.procedure.save_images and fooling else None


def _run(work: _Work, turn: Turn, positions: Tensor) -> list[_Found]:
    """The batches of a unit, one after the other."""
    name, failed, device = turn.unit, 0, work.procedure.device
    judged = []
    for part in torch.split(positions, work.procedure.batch_size):
        try:
            judged.append(_attempt(work, turn, part))
        except ValueError as error:  # of what comes from outside: labels, pixels, answers
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
    if failed:  # outside of the handler: its error would keep the memory of the failed batch alive
        fits = devices.size_that_fits(lambda size: _attempt(work, turn, positions[:size]), failed, device)
        advice = f"--evaluate.batch-size {fits} fits" if fits else "not even one image fits"
        raise UserError(f"Out of memory with {name} on batches of {failed}: {advice}.")
    return judged


def _attempt(work: _Work, turn: Turn, positions: Tensor) -> _Found:
    """One attack on one batch, judged."""
    named, device = turn.attack, work.procedure.device
    batch = read_batch(work.images, positions, device, with_parts=named is not None and named.parts)
    if named is None:
        check_unit_range(batch.images)
        logits = logits_of(work.model, batch.images)
        check_labels(batch.labels, logits.shape[1])
        answers, zero = logits.argmax(dim=1), torch.zeros_like(batch.labels)
        return _Found(positions, answers, answers != batch.labels, zero, zero)
    radii = tuple(work.budgets) if named.nearest else (turn.radius,)
    budgets = [work.budgets[radius](batch) for radius in radii]
    keys = Keys(work.procedure.seed, named.name, batch.index)
    pixels, nearest, forwards, backwards = _search(named, work.view, batch, budgets, keys)
    answers, allowed = predictions(work.model, pixels), _allowed(budgets, pixels, batch)
    fooled = (answers != batch.labels) & allowed.any(dim=0)
    with torch.no_grad():
        claimed = work.view(pixels).argmax(dim=1) != batch.labels
    if len(radii) > 1:  # what lies beyond all radii claims nothing
        claimed &= allowed.any(dim=0)
    forwards, again = forwards + 1, claimed & ~fooled
    if bool(again.any()):  # the attack stopped at what fools the view alone: once more, on the model itself
        part, narrowed = batch.select(again), [budget.select(again) for budget in budgets]
        with as_judged(work.model, device):
            second = _search(named, work.model, part, narrowed, keys[again])
        pixels[again], nearest[again] = second[:2]
        forwards[again], backwards[again] = forwards[again] + second[2], backwards[again] + second[3]
        answers[again] = predictions(work.model, second[0])
        allowed[:, again] = _allowed(narrowed, second[0], part)
        fooled = (answers != batch.labels) & allowed.any(dim=0)
    judged = _Found(positions, answers, fooled, forwards, backwards, pixels)
    if turn.radius is not None:
        smallest = torch.tensor(radii, dtype=torch.float64)[allowed.int().argmax(dim=0).cpu()]
        judged = replace(judged, radii=torch.where(fooled.cpu(), smallest, torch.nan))
    if named.nearest:
        judged = replace(judged, distances=_distances(work.model, nearest, batch, budgets[0]))
    return judged


def _search(
    named: NamedAttack, model: Classifier, batch: Batch, budgets: Sequence[Budget], keys: Keys
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The images to judge, the nearest ones, and the passes (B,), of one run in the smallest budget."""
    attacked = named.on(model, batch, budget=budgets[0], keys=keys)
    nearest = attacked.nearest if named.nearest else attacked.images
    if nearest is None:
        raise ValueError(
            "it is said to look for the nearest adversarial image, and returns no Attacked.nearest."
        )
    pixels = attacked.images if len(budgets) == 1 else nearest
    return pixels.clone(), nearest.clone(), attacked.forwards, attacked.backwards.clone()


def _allowed(budgets: Sequence[Budget], pixels: Tensor, batch: Batch) -> Tensor:
    """Whether each budget (R,) allows each image: (R, B)."""
    return torch.stack([budget.contains(pixels, batch.images) for budget in budgets])


def _distances(model: nn.Module, nearest: Tensor, batch: Batch, budget: Budget) -> Tensor:
    """How far the images are that fool the original model (B,), measured here; infinite where they do not."""
    length = budget.distance(nearest, batch.images) * budget.size(batch.images)
    return torch.where(predictions(model, nearest) != batch.labels, length, torch.inf)


def read_batch(
    images: ImageSet, positions: Tensor, device: torch.device, *, with_parts: bool = False
) -> Batch:
    """The images at some positions, as an attack meets them; ``with_parts``, their part ids as far as there are any."""
    chosen = images.subset(positions)
    everything = torch.arange(len(chosen))
    pixels = as_floats(chosen.read(everything).to(device))
    users_masks = images.read_masks(positions)
    importance = None if users_masks is None else users_masks.to(device)
    batch = Batch(pixels, chosen.labels.to(device), chosen.index.to(device), importance=importance)
    if chosen.parts is None or not with_parts:
        return batch
    parts, there = chosen.read_parts(everything).to(device), chosen.parts.there.to(device)
    return replace(batch, parts=parts, has_parts=there)


def _unit(judged: Sequence[_Found], seconds: float) -> Unit:
    columns = {
        name: torch.cat([getattr(part, name).cpu() for part in judged]).tolist()
        for name in ("positions", "answers", "fooled", "forwards", "backwards")
    }
    radii = _numbers([part.radii for part in judged if part.radii is not None])
    distances = _numbers([part.distances for part in judged if part.distances is not None])
    return Unit(**columns, seconds=seconds, radii=radii, distances=distances)


def _numbers(parts: Sequence[Tensor]) -> list[float | None] | None:
    """Of all batches, with None in place of NaN and infinity; None where the unit has no such column."""
    if not parts:
        return None
    return [value if math.isfinite(value) else None for part in parts for value in part.tolist()]


def write_table(path: Path, rows: Sequence[LedgerRow], classes: Sequence[str]) -> None:
    """The per-image table as CSV.

    Of several radii it has that at which an image fell; of attacks that tell, how far the nearest image is.
    """
    several = any(row.radii for row in rows)
    telling = list(dict.fromkeys(name for row in rows for name in row.distances))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            columns = ["index", "label", "clean", "first_fooled_by", "answer", "forwards", "backwards"]
            columns += ["radius"] if several else []
            table.writerow([*columns, *(f"distance {name}" for name in telling)])
            for r in rows:
                names = [classes[r.label], classes[r.clean], r.fooled_by, classes[r.answer]]
                radius = [r.radii[0] if r.radii else ""] if several else []
                distances = [r.distances.get(name, "") for name in telling]
                table.writerow([r.index, *names, r.forwards, r.backwards, *radius, *distances])

    write_atomically(path, write)


SMALLER = "a smaller radius"  # stands for what felled an image there


def rows_at(
    rows: Sequence[LedgerRow],
    attacks: Sequence[NamedAttack],
    radius: float,
    radii: Sequence[float],
    individual: bool = False,
) -> list[LedgerRow]:
    """The rows as they stand at one radius of several: with names of attacks in place of units.

    An image that fell at a smaller radius is fooled by ``SMALLER``; with ``individual``, by whatever fooled it there.
    """
    attack_of = {unit: attack.name for unit, attack in units_of(attacks, radii).items()}
    made = []
    for row in rows:
        falls = list(zip(row.fooled, row.radii, strict=True))
        here = {attack_of[unit]: None for unit, at in falls if at == radius or (individual and at < radius)}
        before = [] if individual or all(at >= radius for _, at in falls) else [SMALLER]
        made.append(replace(row, fooled=(*before, *here), radii=()))
    return made


def metrics(
    rows: Sequence[LedgerRow],
    classes: Sequence[str],
    attacks: Sequence[NamedAttack],
    details: dict[str, Any],
    seconds: float,
    individual: bool = False,
    radii: Sequence[float] = (),
) -> list[Record]:
    """Accuracies with intervals: clean, after each line of attacks, and in the worst case.

    A line counts what it and all earlier lines left, or with ``individual`` what it alone left. Of several radii each
    has its records, whose details say ``eps``; those of the last are named as those of a single radius are, and the
    others "accuracy/PGD-20 at 4/255".
    """
    details = {**details, "individual": individual}

    def record(name: str, stands: Sequence[bool], **more: Any) -> Record:
        return _accuracy(name, stands, rows, classes, {**details, **more}, seconds)

    made = [record(CLEAN, [row.right for row in rows])]
    if not radii:
        standing = _standing(rows, attacks, individual)
        return made + [record(name, stands) for name, stands in standing.items()]
    for radius in radii:
        here = rows_at(rows, attacks, radius, radii, individual)
        at = "" if radius == radii[-1] else f" at {readable(radius)}"
        standing = _standing(here, attacks, individual)
        made += [record(f"{name}{at}", stands, eps=radius) for name, stands in standing.items()]
    return made


def _standing(
    rows: Sequence[LedgerRow], attacks: Sequence[NamedAttack], individual: bool
) -> dict[str, list[bool]]:
    """{line: whether each image stands after it}, and the worst case."""
    survivors = {}
    so_far: set[str] = {SMALLER}
    for line in dict.fromkeys(attack.line for attack in attacks):
        here = {attack.name for attack in attacks if attack.line == line}
        so_far = here if individual else so_far | here
        survivors[line] = [row.right and so_far.isdisjoint(row.fooled) for row in rows]
    survivors["worst case"] = [row.right and not row.fooled for row in rows]
    return survivors


def median_distances(rows: Sequence[LedgerRow], details: Mapping[str, Any]) -> list[Record]:
    """The median distance to the nearest image that each attack found, of those that tell.

    Over the images that the attack met, all of which the model gets right; none where it found nothing for half.
    """
    made = []
    for name in dict.fromkeys(name for row in rows for name in row.distances):
        met = [row.distances[name] for row in rows if name in row.distances]
        middle = statistics.median(met)
        value = middle if math.isfinite(middle) else None
        without = sum(math.isinf(distance) for distance in met)
        counted = {**details, "without": without}
        made.append(Record("metric", f"median distance/{name}", value, len(met), details=counted))
    return made


def _accuracy(
    name: str,
    right_images: Sequence[bool],
    rows: Sequence[LedgerRow],
    classes: Sequence[str],
    details: dict[str, Any],
    seconds: float,
) -> Record:
    per_class = {classes[label]: [0, 0] for label in sorted({row.label for row in rows})}
    for row, right in zip(rows, right_images, strict=True):
        counts = per_class[classes[row.label]]
        counts[0] += right
        counts[1] += 1
    passes = {"forwards": sum(r.forwards for r in rows), "backwards": sum(r.backwards for r in rows)}
    return Record(
        kind="metric",
        name=f"accuracy/{name}",
        value=sum(right_images) / len(rows),
        n=len(rows),
        interval=wilson(sum(right_images), len(rows)),
        details={**details, "per_class": per_class, **passes},
        seconds=seconds,
    )
