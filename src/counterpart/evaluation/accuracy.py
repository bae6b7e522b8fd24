"""Clean and robust accuracy: a row per image, committed unit by unit, so that a killed evaluation goes on.

The evaluator trusts nobody. Attacks search on a fast view of the model; a success counts only if the original
model in float32 is fooled by exactly these pixels and ``budget.contains`` holds.
"""

import csv
import time
from collections.abc import Callable, Iterator, Sequence
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
from ..progress import track
from ..protocols import Attack, Classifier, NamedAttack
from ..records import Record
from ..rundir import write_atomically
from ..seeding import Keys
from ..statistics import wilson
from .ledger import CLEAN, Ledger, Row, Unit, weights_hash

NO_GRADIENT = (
    "does not require grad",
    "appears to not have been used in the graph",
)  # what autograd says then

BudgetOf = Callable[[Batch], Budget]
"""Clean images -> what the attacker may do to them."""


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
        right, kept = _right_and_kept(model, view, batch, budget_of, attack, seed)
        counts += torch.stack([right.sum(), kept.sum(), torch.tensor(len(batch), device=device)])
    distributed.sum_([counts])
    right_n, kept_n, n = counts.tolist()
    return right_n / n, kept_n / n


def _right_and_kept(
    model: nn.Module, view: Classifier, batch: Batch, budget_of: BudgetOf, attack: Attack, seed: int
) -> tuple[Tensor, Tensor]:
    right = predictions(model, batch.images) == batch.labels
    kept = right.clone()
    if right.any():
        tried = batch.select(right)
        budget = budget_of(tried)
        keys = Keys(seed, "validation", tried.index)
        attacked = attack(view, tried.images, tried.labels, budget=budget, keys=keys)
        kept[right] = ~judge(model, attacked.images, tried.images, tried.labels, budget)[0]
    return right, kept


def evaluate(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    attacks: Sequence[NamedAttack],
    *,
    budget_of: BudgetOf,
    ledger: Ledger,
    procedure: Procedure,
    title: str = "evaluation",
) -> list[Row]:
    """Every attack on every image that is still classified correctly when its turn comes.

    Where an attack stopped at an image that fools the view and not the model (near the boundary, or in bf16), it is run
    once more, on the model itself. Within a chunk, the images that an attack meets are packed into batches anew, so
    that batches stay full as images fall. Under ``torchrun`` chunks are dealt out over processes; what a batch holds
    does not depend on that.

    Args:
        model: the original, judged in float32.
        view: what the attacks search on.
        images: what to evaluate.
        attacks: in the order in which "first" is meant; cheapest first.
        budget_of: what the attacker may do.
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
    size, save_images = procedure.chunk_size, procedure.save_images
    mine = range(distributed.rank(), ledger.chunks, distributed.world_size())
    left = torch.ones(len(images), dtype=torch.bool)  # what the next attack meets
    weights = weights_hash(model)
    with track(title, (1 + len(attacks)) * len(images)) as bar, devices.exact_float32():
        for named in (None, *attacks):
            name = named.name if named else CLEAN
            bar.describe(f"{title}: {name}")
            for chunk in mine:
                members = torch.arange(chunk * size, min((chunk + 1) * size, len(images)))
                unit = ledger.read(name, chunk)
                kept = unit is None or not save_images or named is None or ledger.keeps(name, chunk, unit)
                tried = members[left[members]]
                if len(tried) and (unit is None or not kept):
                    started = time.monotonic()
                    work = _Work(model, view, images, named, budget_of, procedure.device, procedure.seed)
                    found = _run(work, tried, procedure.batch_size)
                    unit = _unit(found, time.monotonic() - started)
                    if weights_hash(model) != weights:
                        raise UserError(
                            f"the model changed while it was evaluated by {name} (a forward pass writes into its "
                            "weights or buffers): call eval() in it, or mend its forward. Nothing of this was kept."
                        )
                    fooling = [f.images[f.fooled] for f in found if f.images is not None]
                    ledger.commit(name, chunk, unit, torch.cat(fooling) if save_images and fooling else None)
                if unit is not None and not (procedure.individual and named):
                    left[torch.tensor(unit.positions)[torch.tensor(unit.fooled)]] = False
                bar.advance(len(members))
    distributed.barrier()
    ledger.gather()
    return ledger.rows(images.labels.tolist(), images.index.tolist(), [one.name for one in attacks])


def chunks_of(images: ImageSet, chunk_size: int) -> int:
    """How many chunks a set has."""
    return -(-len(images) // chunk_size)


@dataclass(frozen=True)
class _Work:
    """One attack (None: the clean images), and all that it needs but the images."""

    model: nn.Module
    view: Classifier
    images: ImageSet
    named: NamedAttack | None
    budget_of: BudgetOf
    device: torch.device
    seed: int


@dataclass(frozen=True)
class _Found:
    """What one batch came to. For the clean images, "fooled" are those that are wrong anyway."""

    positions: Tensor
    answers: Tensor
    fooled: Tensor
    forwards: Tensor
    backwards: Tensor
    images: Tensor | None


def _run(work: _Work, positions: Tensor, batch_size: int) -> list[_Found]:
    """The batches of a unit, one after the other."""
    name, failed = work.named.name if work.named else CLEAN, 0
    found = []
    for part in torch.split(positions, batch_size):
        try:
            found.append(_attempt(work, part))
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
        fits = devices.size_that_fits(lambda size: _attempt(work, positions[:size]), failed, work.device)
        advice = f"--evaluate.batch-size {fits} fits" if fits else "not even one image fits"
        raise UserError(f"Out of memory with {name} on batches of {failed}: {advice}.")
    return found


def _attempt(work: _Work, positions: Tensor) -> _Found:
    """One attack on one batch, judged."""
    wants_parts = work.named is not None and work.named.parts
    batch = read_batch(work.images, positions, work.device, with_parts=wants_parts)
    if work.named is None:
        check_unit_range(batch.images)
        logits = logits_of(work.model, batch.images)
        check_labels(batch.labels, logits.shape[1])
        answers, zero = logits.argmax(dim=1), torch.zeros_like(batch.labels)
        return _Found(positions, answers, answers != batch.labels, zero, zero, None)
    budget = work.budget_of(batch)
    keys = Keys(work.seed, work.named.name, batch.index)
    attacked = work.named.on(work.view, batch, budget=budget, keys=keys)
    fooled, answers = judge(work.model, attacked.images, batch.images, batch.labels, budget)
    with torch.no_grad():
        claimed = work.view(attacked.images).argmax(dim=1) != batch.labels
    found, forwards, backwards = attacked.images.clone(), attacked.forwards + 1, attacked.backwards.clone()
    again = (
        claimed & ~fooled
    )  # the attack stopped at what fools the view alone: once more, on the model itself
    if bool(again.any()):
        part, allowed = batch.select(again), budget.select(again)
        with as_judged(work.model, work.device):
            second = work.named.on(work.model, part, budget=allowed, keys=keys[again])
        found[again], forwards[again] = second.images, forwards[again] + second.forwards
        backwards[again] += second.backwards
        fooled[again], answers[again] = judge(work.model, second.images, part.images, part.labels, allowed)
    return _Found(positions, answers, fooled, forwards, backwards, found)


def read_batch(
    images: ImageSet, positions: Tensor, device: torch.device, *, with_parts: bool = False
) -> Batch:
    """The images at some positions, as an attack meets them; ``with_parts``, their part ids as far as there are any."""
    chosen = images.subset(positions)
    everything = torch.arange(len(chosen))
    pixels = as_floats(chosen.read(everything).to(device))
    own = images.read_masks(positions)
    importance = None if own is None else own.to(device)
    batch = Batch(pixels, chosen.labels.to(device), chosen.index.to(device), importance=importance)
    if chosen.parts is None or not with_parts:
        return batch
    parts, there = chosen.read_parts(everything).to(device), chosen.parts.there.to(device)
    return replace(batch, parts=parts, has_parts=there)


def _unit(found: Sequence[_Found], seconds: float) -> Unit:
    columns = {
        name: torch.cat([getattr(part, name).cpu() for part in found]).tolist()
        for name in ("positions", "answers", "fooled", "forwards", "backwards")
    }
    return Unit(**columns, seconds=seconds)


def write_table(path: Path, rows: Sequence[Row], classes: Sequence[str]) -> None:
    """The per-image table as CSV."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["index", "label", "clean", "first_fooled_by", "answer", "forwards", "backwards"])
            for r in rows:
                names = [classes[r.label], classes[r.clean], r.fooled_by, classes[r.answer]]
                table.writerow([r.index, *names, r.forwards, r.backwards])

    write_atomically(path, write)


def metrics(
    rows: Sequence[Row],
    classes: Sequence[str],
    attacks: Sequence[NamedAttack],
    details: dict[str, Any],
    seconds: float,
    individual: bool = False,
) -> list[Record]:
    """Accuracies with intervals: clean, after each line of attacks, and in the worst case.

    A line counts what it and all earlier lines left, or with ``individual`` what it alone left.
    """
    survivors = {CLEAN: [row.right for row in rows]}
    so_far: set[str] = set()
    for line in dict.fromkeys(one.line for one in attacks):
        here = {one.name for one in attacks if one.line == line}
        so_far = here if individual else so_far | here
        survivors[line] = [row.right and so_far.isdisjoint(row.fooled) for row in rows]
    survivors["worst case"] = [row.fooled_by == "" for row in rows]
    details = {**details, "individual": individual}
    return [_accuracy(name, kept, rows, classes, details, seconds) for name, kept in survivors.items()]


def _accuracy(
    name: str,
    kept: Sequence[bool],
    rows: Sequence[Row],
    classes: Sequence[str],
    details: dict[str, Any],
    seconds: float,
) -> Record:
    per_class = {classes[label]: [0, 0] for label in sorted({row.label for row in rows})}
    for row, right in zip(rows, kept, strict=True):
        counts = per_class[classes[row.label]]
        counts[0] += right
        counts[1] += 1
    passes = {"forwards": sum(r.forwards for r in rows), "backwards": sum(r.backwards for r in rows)}
    return Record(
        kind="metric",
        name=f"accuracy/{name}",
        value=sum(kept) / len(rows),
        n=len(rows),
        interval=wilson(sum(kept), len(rows)),
        details={**details, "per_class": per_class, **passes},
        seconds=seconds,
    )
