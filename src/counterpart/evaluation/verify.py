"""Checks every claim of a ledger again, from the saved images, the weights and the data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from .. import devices
from ..batch import Batch
from ..budget import Budget
from ..contracts import NamedAttack
from ..data.image_sets import ImageSet
from ..losses.classification import margin
from ..models.random_passes import seeded_passes
from ..progress import track
from ..seeding import derive
from .accuracy import BudgetOf, Budgets, by_radius, name_batch
from .answers import logits_of
from .batches import read_batch
from .drawn import DrawPlan, count_right
from .ledger import CLEAN, Ledger, Unit
from .sampling import SamplePlan
from .survivors import Standing, Turn, rounds_of, take_turns

CLOSE = 1e-4  # share of a distance that rounding in float32 may change
MARGINAL = 1e-4  # share of the range of an image's logits that rounding may decide


@dataclass
class Verified:
    """The result of a verification.

    Attributes:
        claims: the number of claims that were checked: answers on clean images and successes of attacks
            together.
        marginal: the number of claims whose margin is below 1e-4 of the range of the logits, so that rounding
            may decide them. They count as claims that hold.
        mismatches: one line for every claim that does not hold.
        successes: the number of claims that are successes of attacks.
        after_rounding: the number of successes that still fool the model after rounding to 8 bits, or None if
            that was not asked.
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
    budget_of: Budgets,
    batch_size: int,
    device: torch.device,
    individual: bool = False,
    eight_bits: bool = False,
    plan: DrawPlan | SamplePlan | None = None,
) -> Verified:
    """The claims of a ledger that hold and those that do not, after judging everything again.

    The clean answers are made again. Each saved image has to be within its budget, to fool the model, and to
    give the claimed answer. Each attack has to have met all images that it should have met, since an image
    that was passed over would count as robust. With several radii, a fallen image is checked at the radius at
    which it is said to have fallen. With a sample, the dear attacks have to have met exactly the survivors that
    are drawn again here.

    Args:
        model: the original model, which judges in float32.
        images: the images that were evaluated.
        attacks: the attacks whose claims are checked, in the order in which they ran.
        ledger: the ledger that makes the claims, with its saved images.
        budget_of: how far the attacker was allowed to change the images; for several radii, a mapping from
            each radius to its budgets, rising.
        batch_size: the number of images that are judged at once.
        device: the device that computes.
        individual: whether each attack met all images that the model gets right. Otherwise it met those that
            earlier attacks left standing.
        eight_bits: whether the saved images are judged once more after ``to_eight_bits``.
        plan: the draws that each image was judged by, which are drawn again, or how dear attacks were tried on a
            sample of the survivors; None where one answer decided, and all attacks met all that still stood.
    """
    draws = plan if isinstance(plan, DrawPlan) else None
    sample = plan if isinstance(plan, SamplePlan) else None
    result, budgets = Verified(after_rounding=0 if eight_bits else None), by_radius(budget_of)
    work = _Verification(result, model, images, ledger, budgets, batch_size, device, draws)
    turns, standing = take_turns(attacks, tuple(budgets), sample), Standing(len(images), individual)
    passes = seeded_passes(model, derive(0, "verification"), device)
    with track("verifying", len(turns) * ledger.chunks, unit="units") as bar, devices.exact_float32(), passes:
        for number, turns_of_round in enumerate(rounds_of(turns)):
            if sample is not None and number > 0:
                standing.draw(sample, images.index, number)
            for chunk in range(ledger.chunks):
                _check_chunk(work, turns_of_round, chunk, standing)
                bar.advance(len(turns_of_round))
    return result


@dataclass(frozen=True)
class _Verification:
    """Everything that the units of an evaluation are checked against."""

    result: Verified
    model: nn.Module
    images: ImageSet
    ledger: Ledger
    budgets: Mapping[float | None, BudgetOf]
    batch_size: int
    device: torch.device
    plan: DrawPlan | None = None


def _check_chunk(work: _Verification, turns: Sequence[Turn], chunk: int, standing: Standing) -> None:
    """Check the units of some turns and a chunk in their order, and take away what fell.

    The first of all turns is that of the clean answers. Of a chunk that lacks them nothing more is checked.
    """
    clean = work.ledger.read(CLEAN, chunk)
    if clean is None:
        if turns[0].attack is None:
            work.result.mismatches.append(f"chunk {chunk} has no clean answers: evaluate first")
        return
    members = torch.tensor(clean.positions)
    for turn in turns:
        unit = work.ledger.read(turn.unit, chunk)
        if turn.attack is None and unit is not None:
            (_clean if work.plan is None else _clean_by_draws)(work, unit)
            labels = work.images.labels[unit.positions].tolist()
            wrong = [answer != label for answer, label in zip(unit.answers, labels, strict=True)]
            unit = replace(unit, fooled=wrong)
        elif turn.runs:
            _attacked(work, turn, chunk, unit, standing.among(members, turn).tolist())
        if unit is not None:
            standing.take(turn, unit)


def to_eight_bits(attacked: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """Attacked images as an 8-bit file can hold them, in whole levels of 255.

    Changes are rounded towards the clean value, so that the result is still within the budget.
    """
    moved = (attacked.double() - clean.double()) * 255
    # Budgets round inwards, so that a change by 8 levels may arrive as 7.99999.
    nearly = _levels(clean, moved + 1e-4 * moved.sign())
    allowed = budget.contains(nearly, clean).view(-1, 1, 1, 1)
    return torch.where(allowed, nearly, _levels(clean, moved))


def _levels(clean: Tensor, moved: Tensor) -> Tensor:
    """Clean images moved by whole levels of 255: the fractions of ``moved`` are cut off."""
    whole = (clean * 255).round() + moved.trunc().to(clean)
    return whole.clamp(0, 255) / torch.tensor(255.0, device=clean.device)


def _clean(work: _Verification, unit: Unit) -> None:
    """Check the answers on the clean images of a unit."""
    answers, result = torch.tensor(unit.answers), work.result
    for part, said in zip(
        torch.split(torch.tensor(unit.positions), work.batch_size),
        torch.split(answers, work.batch_size),
        strict=True,
    ):
        batch = read_batch(work.images, part, work.device)
        logits = logits_of(work.model, batch.images)
        lead, thin = _lead(logits, said)
        result.claims += len(part)
        result.marginal += int(thin.sum())
        _fail(result, CLEAN, batch.index, (lead > 0) & ~thin, "answers another class")


def _attacked(work: _Verification, turn: Turn, chunk: int, unit: Unit | None, expected: list[int]) -> None:
    """Check that a turn met the images that it should have met, and that its successes hold."""
    met, name, result = unit.positions if unit else [], turn.unit, work.result
    if met != expected:
        result.mismatches.append(_in_words(turn, chunk, len(met), len(expected)))
    if unit is not None and work.plan is not None:
        _attacked_by_draws(work, turn, chunk, unit)
        return
    if unit is None or not any(unit.fooled):
        return
    hits = torch.tensor(unit.fooled, dtype=torch.bool)
    claimed, answers = (torch.tensor(v)[hits] for v in (unit.positions, unit.answers))
    result.claims += len(claimed)
    result.successes += len(claimed)
    saved = work.ledger.images(name, chunk)
    if saved is None or saved[1] != claimed.tolist() or saved[0].shape[1:] != work.images.shape:
        missing = work.images.index[claimed.to(work.images.index.device)]
        _fail(result, name, missing, torch.ones_like(missing, dtype=torch.bool), "its image is not saved")
        return
    columns = (unit.radii or [turn.radius] * len(hits), unit.distances or [None] * len(hits))
    radii, distances = ([value for value, hit in zip(c, unit.fooled, strict=True) if hit] for c in columns)
    known = tuple(work.budgets) if turn.attack and turn.attack.nearest else (turn.radius,)
    strange = torch.tensor([radius not in known for radius in radii])
    _fail(
        result,
        name,
        work.images.index[claimed[strange]],
        strange[strange],
        "fell at no radius that was asked for",
    )
    for number, radius in enumerate(known):
        of_this = torch.tensor([i for i, r in enumerate(radii) if r == radius], dtype=torch.int64)
        smaller = work.budgets[known[number - 1]] if number else None
        for part in torch.split(of_this, work.batch_size):
            batch = read_batch(work.images, claimed[part], work.device)
            attacked = saved[0][part].to(work.device)
            _claims(work, name, batch, answers[part], attacked, work.budgets[radius](batch))
            lengths = [distances[i] for i in part.tolist()]
            _lengths(work, name, batch, attacked, work.budgets[radius](batch), lengths)
            if smaller is not None:
                before = smaller(batch).contains(attacked, batch.images)
                _fail(result, name, batch.index, before, "fell at a smaller radius already")


def _in_words(turn: Turn, chunk: int, met: int, expected: int) -> str:
    """The line that says that a turn met other images than it should have met."""
    how = "drawn" if turn.round else "left"
    return f"{turn.unit}, chunk {chunk}: it met {met} images, not the {expected} that were {how} for it"


def _claims(
    work: _Verification, name: str, batch: Batch, said: Tensor, attacked: Tensor, budget: Budget
) -> None:
    """Check that images are within their budgets, fool the model, and give the claimed answers."""
    result = work.result
    logits, allowed = logits_of(work.model, attacked), budget.contains(attacked, batch.images)
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
        answers = logits_of(work.model, rounded).argmax(dim=1)
        still = (answers != batch.labels) & budget.contains(rounded, batch.images)
        result.after_rounding += int(still.sum())


def _clean_by_draws(work: _Verification, unit: Unit) -> None:
    """Check how many draws are right on the clean images of a unit."""
    for number, part in enumerate(torch.split(torch.tensor(unit.positions), work.batch_size)):
        batch = read_batch(work.images, part, work.device)
        _counts(work, CLEAN, unit, number * work.batch_size, batch, batch.images)


def _attacked_by_draws(work: _Verification, turn: Turn, chunk: int, unit: Unit) -> None:
    """Check that all images that a turn met are within their budgets, and how many draws are right on each."""
    saved, result = work.ledger.images(turn.unit, chunk), work.result
    positions = torch.tensor(unit.positions)
    if saved is None or saved[1] != unit.positions or saved[0].shape[1:] != work.images.shape:
        missing = work.images.index[positions.to(work.images.index.device)]
        _fail(
            result, turn.unit, missing, torch.ones_like(missing, dtype=torch.bool), "its image is not saved"
        )
        return
    for number, part in enumerate(torch.split(positions, work.batch_size)):
        begin = number * work.batch_size
        batch = read_batch(work.images, part, work.device)
        attacked = saved[0][begin : begin + len(part)].to(work.device)
        budget = work.budgets[turn.radius](batch)
        beyond = ~budget.contains(attacked, batch.images)
        _fail(result, turn.unit, batch.index, beyond, "is beyond the budget")
        _counts(work, turn.unit, unit, begin, batch, attacked)
        if result.after_rounding is not None:
            rounded = to_eight_bits(attacked, batch.images, budget)
            answers = logits_of(work.model, rounded).argmax(dim=1)
            result.after_rounding += int((answers != batch.labels).sum())


def _counts(work: _Verification, name: str, unit: Unit, begin: int, batch: Batch, images: Tensor) -> None:
    """Draw again, and check the counts of right answers; passes that rounding may decide may differ."""
    assert work.plan is not None
    positions, here = torch.tensor(unit.positions), slice(begin, begin + len(batch))
    counted = count_right(
        work.model, partial(logits_of, work.model), images, batch.labels,
        work.plan, name_batch(name, positions[here]),
    )  # fmt: skip
    work.result.claims += len(batch)
    work.result.successes += sum(unit.fooled[here]) if name != CLEAN else 0
    work.result.marginal += int((counted.close > 0).sum())
    said = torch.tensor([unit.first or [], unit.fresh or []], device=work.device)[:, here]
    off = (said - torch.stack([counted.first, counted.fresh])).abs().sum(dim=0)
    _fail(work.result, name, batch.index, off > counted.close, "is right in another number of draws")
    answers = torch.tensor(unit.answers[here], device=work.device)
    _fail(
        work.result,
        name,
        batch.index,
        (answers != counted.answers) & (counted.close == 0),
        "answers another class",
    )


def _lengths(
    work: _Verification, name: str, batch: Batch, attacked: Tensor, budget: Budget, said: list[float | None]
) -> None:
    """Check the claimed distances of images; an image with None claims none."""
    length = (budget.distance(attacked, batch.images) * budget.size(batch.images)).tolist()
    for index, claimed, measured in zip(batch.index.tolist(), said, length, strict=True):
        if claimed is not None and not math.isclose(claimed, measured, rel_tol=CLOSE):
            work.result.mismatches.append(
                f"{name}, image {index}: its distance is {measured:.6g}, not {claimed:.6g}"
            )


def _range(logits: Tensor) -> Tensor:
    """The difference (B,) between the largest and the smallest logit of each image."""
    return logits.amax(dim=1) - logits.amin(dim=1)


def _lead(logits: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
    """How far the logit of the answer is above that of the claimed one (B,), and whether only marginally.

    The difference is 0 where both answers are the same.
    """
    lead = logits.amax(dim=1) - logits.gather(1, said.to(logits.device)[:, None])[:, 0]
    return lead, (lead > 0) & (lead < MARGINAL * _range(logits))


def _fail(result: Verified, name: str, index: Tensor, where: Tensor, fault: str) -> None:
    """Add a mismatch for each image at which ``where`` is true."""
    result.mismatches += [f"{name}, image {i}: {fault}" for i in index[where].tolist()]
