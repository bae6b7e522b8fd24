"""What the rows of an evaluation come to: the table of all images, accuracies with intervals, and distances."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..contracts import NamedAttack
from ..numerals import readable
from ..records import WORST, Record
from ..rundir import write_atomically
from ..spreadsheets import CsvWriter
from ..statistics import mean_share, wilson
from .accuracy import units_of
from .drawn import chosen_share
from .ledger import CLEAN, LedgerRow
from .survivors import take_turns


def write_table(
    path: Path, rows: Sequence[LedgerRow], classes: Sequence[str], draws: int | None = None
) -> None:
    """Write the table of all images as a CSV file, one line per image.

    With several radii, a column has the radius at which the image fell. An attack that looks for the nearest
    adversarial image has a column with its distance. Where images are judged by ``draws``, a column has the share of
    them that is right in the worst case.
    """
    several = any(row.radii for row in rows)
    telling = list(dict.fromkeys(name for row in rows for name in row.distances))
    shares = None if draws is None else worst_shares(rows, draws)

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = CsvWriter(file)
            columns = ["index", "label", "clean", "first_fooled_by", "answer", "forwards", "backwards"]
            columns += ["radius"] if several else []
            columns += [] if shares is None else ["share"]
            table.writerow([*columns, *(f"distance {name}" for name in telling)])
            for number, r in enumerate(rows):
                names = [classes[r.label], classes[r.clean], r.fooled_by, classes[r.answer]]
                radius = [r.radii[0] if r.radii else ""] if several else []
                distances = [r.distances.get(name, "") for name in telling]
                share = [] if shares is None else [shares[number]]
                table.writerow([r.index, *names, r.forwards, r.backwards, *radius, *share, *distances])

    write_atomically(path, write)


SMALLER = "a smaller radius"  # the name given to whatever felled an image there


def rows_at(
    rows: Sequence[LedgerRow],
    attacks: Sequence[NamedAttack],
    radius: float,
    radii: Sequence[float],
    individual: bool = False,
) -> list[LedgerRow]:
    """The rows as they stand at one of several radii, with names of attacks in place of names of units.

    An image that fell at a smaller radius is said to be fooled by ``SMALLER``. With ``individual`` it is said
    to be fooled by the attacks that fooled it there.
    """
    attack_of = {unit: attack.name for unit, attack in units_of(attacks, radii).items()}
    rows_at_radius = []
    for row in rows:
        falls = list(zip(row.fooled, row.radii, strict=True))
        here = {attack_of[unit]: None for unit, at in falls if at == radius or (individual and at < radius)}
        before = [] if individual or all(at >= radius for _, at in falls) else [SMALLER]
        rows_at_radius.append(replace(row, fooled=(*before, *here), radii=()))
    return rows_at_radius


def metrics(
    rows: Sequence[LedgerRow],
    classes: Sequence[str],
    attacks: Sequence[NamedAttack],
    details: dict[str, Any],
    seconds: float,
    individual: bool = False,
    radii: Sequence[float] = (),
    draws: int | None = None,
) -> list[Record]:
    """The accuracies with their 95 % intervals: clean, after each line of attacks, and in the worst case.

    A line is one row of the results; it may gather several attacks. It counts the images that it and all
    earlier lines left standing, or with ``individual`` those that it alone left standing.

    With several radii, each radius has its own records, whose details say ``eps``. The records of the largest
    radius have the same names as those of an evaluation of one radius. The others have names such as
    "accuracy/PGD-20 at 4/255".

    Where images are judged by ``draws``, an accuracy is the mean over the images of the share of draws that are right.
    The attack that counts for an image is the worst on other draws, of those of the line and, unless ``individual``, of
    all earlier ones; the clean image is among them.
    """
    details = {**details, "individual": individual}

    def record(name: str, stands: Sequence[float], **more: Any) -> Record:
        return _accuracy(name, stands, rows, classes, {**details, **more}, seconds, draws)

    if draws is not None:
        shares = line_shares(rows, attacks, draws, individual, radii)
        return [
            record(name, line, **({} if eps is None else {"eps": eps}))
            for (name, eps), line in shares.items()
        ]
    records = [record(CLEAN, [row.right for row in rows])]
    if not radii:
        standing = _standing(rows, attacks, individual)
        return records + [record(name, stands) for name, stands in standing.items()]
    for radius in radii:
        here = rows_at(rows, attacks, radius, radii, individual)
        at = "" if radius == radii[-1] else f" at {readable(radius)}"
        standing = _standing(here, attacks, individual)
        records += [record(f"{name}{at}", stands, eps=radius) for name, stands in standing.items()]
    return records


def _standing(
    rows: Sequence[LedgerRow], attacks: Sequence[NamedAttack], individual: bool
) -> dict[str, list[bool]]:
    """A mapping from each line, and from "worst case", to whether each image stands after it."""
    survivors = {}
    so_far: set[str] = {SMALLER}
    for line in dict.fromkeys(attack.line for attack in attacks):
        here = {attack.name for attack in attacks if attack.line == line}
        so_far = here if individual else so_far | here
        survivors[line] = [row.right and so_far.isdisjoint(row.fooled) for row in rows]
    survivors[WORST] = [row.right and not row.fooled for row in rows]
    return survivors


def line_shares(
    rows: Sequence[LedgerRow],
    attacks: Sequence[NamedAttack],
    draws: int,
    individual: bool = False,
    radii: Sequence[float] = (),
) -> dict[tuple[str, float | None], list[float]]:
    """A mapping from the name and the radius of each accuracy to the share of right draws of each image.

    Among the candidates at a radius are attacks at smaller ones, whose images are within this budget too.
    """
    shares: dict[tuple[str, float | None], list[float]] = {}

    def add(name: str, eps: float | None, candidates: Sequence[str]) -> None:
        shares[name, eps] = [chosen_share(row.first, row.fresh, candidates, draws) for row in rows]

    add(CLEAN, None, [CLEAN])
    lines = list(dict.fromkeys(attack.line for attack in attacks))
    for radius in radii or (None,):
        smaller = [None] if radius is None else [value for value in radii if value <= radius]
        turns = [turn for turn in take_turns(attacks, smaller) if turn.attack is not None]
        at = "" if radius is None or radius == radii[-1] else f" at {readable(radius)}"
        for number, line in enumerate(lines):
            counted = {line} if individual else set(lines[: number + 1])
            units = [turn.unit for turn in turns if turn.attack is not None and turn.attack.line in counted]
            add(f"{line}{at}", radius, [CLEAN, *units])
        add(f"{WORST}{at}", radius, [CLEAN, *(turn.unit for turn in turns)])
    return shares


def worst_shares(rows: Sequence[LedgerRow], draws: int) -> list[float]:
    """The share of each image's fresh draws that are right in the worst case over all that it met."""
    return [chosen_share(row.first, row.fresh, row.first, draws) for row in rows]


UNION = "union/"  # the names of the records of a union of budgets begin with this


def unite(rows_of: Mapping[str, Sequence[LedgerRow]]) -> list[LedgerRow]:
    """One row per image from the rows of each norm, in which attacks are called such as "l2: PGD-20".

    An image stands if it stands in every norm. Passes add up.

    Args:
        rows_of: the rows of the same images in each norm.

    Raises:
        ValueError: the rows are of different images.
    """
    united = []
    for rows in zip(*rows_of.values(), strict=True):
        if len({(row.index, row.label) for row in rows}) > 1:
            raise ValueError(
                f"a union is over the same images; got {[row.index for row in rows]} beside each other."
            )
        names = [f"{norm}: {name}" for norm, row in zip(rows_of, rows, strict=True) for name in row.fooled]
        telling = next((row for row in rows if not row.right or row.fooled), rows[0])
        united.append(
            replace(
                telling,
                fooled=tuple(names),
                forwards=sum(row.forwards for row in rows),
                backwards=sum(row.backwards for row in rows),
                radii=(),
                distances={},
                first=_of_norms({norm: row.first for norm, row in zip(rows_of, rows, strict=True)}),
                fresh=_of_norms({norm: row.fresh for norm, row in zip(rows_of, rows, strict=True)}),
            )
        )
    return united


def _of_norms(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The counts of an image in all norms; the clean image is the same in each."""
    return {
        name if name == CLEAN else f"{norm}: {name}": count
        for norm, here in counts.items()
        for name, count in here.items()
    }


def union_metrics(
    rows_of: Mapping[str, Sequence[LedgerRow]],
    classes: Sequence[str],
    details: dict[str, Any],
    seconds: float,
    draws: int | None = None,
) -> list[Record]:
    """The accuracies against a union of budgets: clean, the worst case in each norm, and the worst case over all."""
    united = unite(rows_of)
    stands: dict[str, Sequence[float]] = {
        CLEAN: [row.right for row in united],
        **{norm: [row.right and not row.fooled for row in rows] for norm, rows in rows_of.items()},
        WORST: [row.right and not row.fooled for row in united],
    }
    if draws is not None:
        stands = {
            CLEAN: [row.fresh[CLEAN] / draws for row in united],
            **{norm: worst_shares(rows, draws) for norm, rows in rows_of.items()},
            WORST: worst_shares(united, draws),
        }
    records = [
        _accuracy(name, right, united, classes, details, seconds, draws) for name, right in stands.items()
    ]
    return [replace(record, name=UNION + record.name.removeprefix("accuracy/")) for record in records]


def median_distances(rows: Sequence[LedgerRow], details: Mapping[str, Any]) -> list[Record]:
    """The median distance to the nearest adversarial image, for each attack that looks for it.

    The median is taken over the images that the attack met, all of which the model gets right. The value is
    None where the attack found nothing for half of them.
    """
    records = []
    for name in dict.fromkeys(name for row in rows for name in row.distances):
        met = [row.distances[name] for row in rows if name in row.distances]
        middle = statistics.median(met)
        value = middle if math.isfinite(middle) else None
        without = sum(math.isinf(distance) for distance in met)
        counted = {**details, "without": without}
        records.append(Record("metric", f"median distance/{name}", value, len(met), details=counted))
    return records


def _accuracy(
    name: str,
    right_images: Sequence[float],
    rows: Sequence[LedgerRow],
    classes: Sequence[str],
    details: dict[str, Any],
    seconds: float,
    draws: int | None,
) -> Record:
    """The record of one accuracy, with its interval, the counts of each class and the passes.

    ``right_images`` says of each image whether it counts, or which share of its ``draws`` does.
    """
    total = sum(right_images)
    interval = wilson(int(total), len(rows)) if draws is None else mean_share(right_images, draws)[1]
    per_class: dict[str, list[float]] = {
        classes[label]: [0, 0] for label in sorted({row.label for row in rows})
    }
    for row, right in zip(rows, right_images, strict=True):
        counts = per_class[classes[row.label]]
        counts[0] += right
        counts[1] += 1
    passes = {"forwards": sum(r.forwards for r in rows), "backwards": sum(r.backwards for r in rows)}
    return Record(
        kind="metric",
        name=f"accuracy/{name}",
        value=total / len(rows),
        n=len(rows),
        interval=interval,
        details={**details, "per_class": per_class, **passes},
        seconds=seconds,
    )
