"""Re-derive every claim of a ledger from the saved images, the weights and the data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import devices
from ..budget import Budget
from ..data.image_sets import ImageSet
from ..losses.classification import margin
from ..progress import track
from ..protocols import NamedAttack
from .accuracy import BudgetOf, logits_of, read_batch
from .ledger import CLEAN, Ledger, Unit

MARGINAL = 1e-4  # of the range of an image's logits: floating-point order decides there


@dataclass
class Verified:
    """What came of it.

    Attributes:
        claims: answers on clean images and successes of attacks, together.
        marginal: claims that stand on a margin below 1e-4 of the logits' range, whichever side it fell on today.
            They count as claims that hold.
        mismatches: one line for every claim that does not hold.
        successes: successes of attacks among the claims.
        after_rounding: how many of them still fool after rounding to 8 bits, or None if that was not asked.
    """

    claims: int = 0
    marginal: int = 0
    mismatches: list[str] = field(default_factory=list)
    successes: int = 0
    after_rounding: int | None = None


def verify(
    model: nn.Module,
    images: ImageSet,
    attacks: Sequence[NamedAttack],
    ledger: Ledger,
    *,
    budget_of: BudgetOf,
    batch_size: int,
    device: torch.device,
    individual: bool = False,
    eight_bits: bool = False,
) -> Verified:
    """Judge again: the clean answers, and that each saved image is allowed, fools, and gives the claimed answer.

    That each attack met all images that it should have met is checked as well: one that was passed over would
    count as robust.

    Args:
        model: the original, judged in float32.
        images: what was evaluated.
        attacks: whose claims.
        ledger: with its saved images.
        budget_of: what the attacker was allowed.
        batch_size: images judged at once.
        device: where to compute.
        individual: whether each attack met all images that the model gets right, or those that were left.
        eight_bits: judge the saved images once more after ``to_eight_bits``.
    """
    result, labels = Verified(after_rounding=0 if eight_bits else None), images.labels.tolist()
    with track("verifying", (1 + len(attacks)) * ledger.chunks) as bar, devices.exact_float32():
        for chunk in range(ledger.chunks):
            unit = ledger.read(CLEAN, chunk)
            bar.advance(1)
            if unit is None:
                result.mismatches.append(f"chunk {chunk} has no clean answers: evaluate first")
                continue
            _clean(result, model, images, unit, batch_size, device)
            left = [p for p, answer in zip(unit.positions, unit.answers, strict=True) if answer == labels[p]]
            for name in [one.name for one in attacks]:
                bar.advance(1)
                unit = ledger.read(name, chunk)
                met = unit.positions if unit else []
                if met != left:
                    result.mismatches.append(
                        f"{name}, chunk {chunk}: it met {len(met)} images, not the {len(left)} that were left for it"
                    )
                if unit is None:
                    continue
                _attacked(result, model, images, ledger, name, chunk, unit, budget_of, batch_size, device)
                if not individual:
                    fell = {p for p, hit in zip(unit.positions, unit.fooled, strict=True) if hit}
                    left = [p for p in left if p not in fell]
    return result


def to_eight_bits(attacked: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """Images as a file can hold them: whole levels of 255, rounded towards the clean value and so still allowed."""
    moved = (attacked.double() - clean.double()) * 255
    # Budgets round inwards: 8 levels may come as 7.99999.
    nearly = _levels(clean, moved + 1e-4 * moved.sign())
    allowed = budget.contains(nearly, clean).view(-1, 1, 1, 1)
    return torch.where(allowed, nearly, _levels(clean, moved))


def _levels(clean: Tensor, moved: Tensor) -> Tensor:
    whole = (clean * 255).round() + moved.trunc().to(clean)
    return whole.clamp(0, 255) / torch.tensor(255.0, device=clean.device)


def _clean(
    result: Verified, model: nn.Module, images: ImageSet, unit: Unit, batch_size: int, device: torch.device
) -> None:
    answers = torch.tensor(unit.answers)
    for part, said in zip(
        torch.split(torch.tensor(unit.positions), batch_size), torch.split(answers, batch_size), strict=True
    ):
        batch = read_batch(images, part, device)
        logits = logits_of(model, batch.images)
        lead, thin = _lead(logits, said)
        result.claims += len(part)
        result.marginal += int(thin.sum())
        _fail(result, CLEAN, batch.index, (lead > 0) & ~thin, "answers another class")


def _attacked(
    result: Verified,
    model: nn.Module,
    images: ImageSet,
    ledger: Ledger,
    name: str,
    chunk: int,
    unit: Unit,
    budget_of: BudgetOf,
    batch_size: int,
    device: torch.device,
) -> None:
    hits = torch.tensor(unit.fooled, dtype=torch.bool)
    claimed, answers = (torch.tensor(v)[hits] for v in (unit.positions, unit.answers))
    result.claims += len(claimed)
    result.successes += len(claimed)
    if len(claimed) == 0:
        return
    saved = ledger.images(name, chunk)
    if saved is None or saved[1] != claimed.tolist() or saved[0].shape[1:] != images.shape:
        missing = images.index[claimed.to(images.index.device)]
        _fail(result, name, missing, torch.ones_like(missing, dtype=torch.bool), "its image is not saved")
        return
    for part, said, attacked in zip(
        *(torch.split(v, batch_size) for v in (claimed, answers, saved[0])), strict=True
    ):
        batch, attacked = read_batch(images, part, device), attacked.to(device)
        budget = budget_of(batch)
        logits, allowed = logits_of(model, attacked), budget.contains(attacked, batch.images)
        gap, (lead, thin_lead) = margin(logits, batch.labels), _lead(logits, said)
        thin = gap.abs() < MARGINAL * _range(logits)
        result.marginal += int((allowed & (thin | thin_lead)).sum())
        used = budget.distance(attacked, batch.images)[~allowed].tolist()
        for index, share in zip(batch.index[~allowed].tolist(), used, strict=True):
            result.mismatches.append(f"{name}, image {index}: {share:.6f} of the budget is used")
        right = allowed & (gap <= 0) & ~thin
        _fail(result, name, batch.index, right, "is not fooled")
        _fail(result, name, batch.index, allowed & ~right & (lead > 0) & ~thin_lead, "answers another class")
        if result.after_rounding is not None:
            rounded = to_eight_bits(attacked, batch.images, budget)
            answers = logits_of(model, rounded).argmax(dim=1)
            still = (answers != batch.labels) & budget.contains(rounded, batch.images)
            result.after_rounding += int(still.sum())


def _range(logits: Tensor) -> Tensor:
    return logits.amax(dim=1) - logits.amin(dim=1)


def _lead(logits: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """How far the answer is ahead of the claimed one, 0 where they are the same; and whether by a little only."""
    lead = logits.amax(dim=1) - logits.gather(1, said.to(logits.device)[:, None])[:, 0]
    return lead, (lead > 0) & (lead < MARGINAL * _range(logits))


def _fail(result: Verified, name: str, index: Tensor, where: Tensor, fault: str) -> None:
    result.mismatches += [f"{name}, image {i}: {fault}" for i in index[where].tolist()]
