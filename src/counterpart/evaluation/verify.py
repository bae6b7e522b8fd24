"""Re-derive every claim of a ledger from the saved images, the weights and the data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .. import devices
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
    eight_bits: bool = False,
) -> Verified:
    """Judge again: the clean answers, and that each saved image is allowed and fools.

    Args:
        model: the original, judged in float32.
        images: what was evaluated.
        attacks: whose claims.
        ledger: with its saved images.
        budget_of: what the attacker was allowed.
        batch_size: images judged at once.
        device: where to compute.
        eight_bits: judge the saved images once more after ``to_eight_bits``.
    """
    result = Verified(after_rounding=0 if eight_bits else None)
    with track("verifying", (1 + len(attacks)) * ledger.chunks) as bar, devices.exact_float32():
        for name in (CLEAN, *[one.name for one in attacks]):
            for chunk in range(ledger.chunks):
                bar.advance(1)
                unit = ledger.read(name, chunk)
                if unit is None:
                    if name == CLEAN:
                        result.mismatches.append(f"chunk {chunk} has no clean answers: evaluate first")
                    continue
                if name == CLEAN:
                    _clean(result, model, images, unit, batch_size, device)
                else:
                    _attacked(result, model, images, ledger, name, chunk, unit, budget_of, batch_size, device)
    return result


def to_eight_bits(attacked: Tensor, clean: Tensor) -> Tensor:
    """Images as a file can hold them: whole levels of 255, rounded towards the clean value and so still allowed."""
    moved = (attacked.double() - clean.double()) * 255
    whole = (moved + 1e-4 * moved.sign()).trunc()  # budgets round inwards: 8 levels may come as 7.99999
    return ((clean * 255).round() + whole.to(clean)).clamp(0, 255) / torch.tensor(255.0, device=clean.device)


def _clean(
    result: Verified, model: nn.Module, images: ImageSet, unit: Unit, batch_size: int, device: torch.device
) -> None:
    answers = torch.tensor(unit.answers)
    for part, said in zip(
        _split(torch.tensor(unit.positions), batch_size), _split(answers, batch_size), strict=True
    ):
        batch = read_batch(images, part, device)
        logits = logits_of(model, batch.images)
        said = said.to(device)
        lead = logits.amax(dim=1) - logits.gather(1, said[:, None])[:, 0]  # 0 where the claim is the answer
        _count(result, "clean", batch.index, lead <= 0, lead, logits, "answers another class")


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
    claimed = [p for p, hit in zip(unit.positions, unit.fooled, strict=True) if hit]
    if not claimed:
        return
    saved = ledger.images(name, chunk)
    if saved is None or saved[1] != claimed:
        result.mismatches.append(
            f"{name}, chunk {chunk}: {len(claimed)} images are claimed, {len(saved[1]) if saved else 0} are saved"
        )
        return
    for part, attacked in zip(
        _split(torch.tensor(claimed), batch_size), _split(saved[0], batch_size), strict=True
    ):
        batch, attacked = read_batch(images, part, device), attacked.to(device)
        budget = budget_of(batch)
        logits, allowed = logits_of(model, attacked), budget.contains(attacked, batch.images)
        gap = margin(logits, batch.labels)
        result.successes += len(part)
        for index in batch.index[~allowed].tolist():
            distance = budget.distance(attacked, batch.images)[batch.index == index].item()
            result.mismatches.append(f"{name}, image {index}: {distance:.6f} of the budget is used")
        _count(result, name, batch.index, (gap > 0) | ~allowed, gap, logits, "is not fooled")
        if result.after_rounding is not None:
            rounded = to_eight_bits(attacked, batch.images)
            answers = logits_of(model, rounded).argmax(dim=1)
            still = (answers != batch.labels) & budget.contains(rounded, batch.images)
            result.after_rounding += int(still.sum())


def _count(
    result: Verified, name: str, index: Tensor, holds: Tensor, gap: Tensor, logits: Tensor, fault: str
) -> None:
    scale = logits.amax(dim=1) - logits.amin(dim=1)
    thin = (gap.abs() < MARGINAL * scale) & (gap != 0) if name == "clean" else gap.abs() < MARGINAL * scale
    result.claims += len(index)
    result.marginal += int(thin.sum())
    result.mismatches += [f"{name}, image {i}: {fault}" for i in index[~holds & ~thin].tolist()]


def _split(values: Tensor, size: int) -> Sequence[Tensor]:
    return torch.split(values, size)
