"""The first glance at a page: a bar for each row, its claims, and what the radius of the budget means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..claims import claim_in_words, claim_over_seeds
from ..records import CLEAN, WORST, Record
from .panel import Panel, Tile
from .setting import budgets_in_words, radius_text
from .tables import TableAccuracy, TableRow, listed
from .verdict import how_many_tried, in_percent, note_on, share_in_percent


@dataclass(frozen=True)
class AccuracyBar:
    """The bar of a row, from its clean accuracy to its worst case.

    Attributes:
        label: the name of the row.
        clean: the accuracy before any attack; None where it was not measured.
        worst: what survives every attack; None where none was tried.
        chance: what the most frequent answer alone reaches, in [0, 1]; None where the classes are not known.
        tried: how many attacks that are, in words.
        doubtful: whether the number is in doubt, so that the bar must not look like a success.
    """

    label: str
    clean: TableAccuracy | None
    worst: TableAccuracy | None
    chance: float | None
    tried: str = "every attack tried"
    doubtful: bool = False

    @property
    def words(self) -> str:
        """The bar for those who do not see it, and beside it."""
        if self.worst is None:
            return f"right on {in_percent(self.clean)}, no attack tried"
        before = "" if self.clean is None else f"right on {in_percent(self.clean)} before; "
        doubt = ", which is in doubt" if self.doubtful else ""
        return f"{before}{in_percent(self.worst)} survived {self.tried}{doubt}"


def bars_of(rows: Sequence[TableRow]) -> list[AccuracyBar]:
    """The bar of each row."""
    bars = []
    for row in rows:
        clean, worst = row.accuracy(CLEAN), row.accuracy(WORST)
        doubtful = bool(note_on(row))
        bars.append(AccuracyBar(row.label, clean, worst, row.chance, how_many_tried(row), doubtful))
    return bars


def claims_in_words(row: TableRow) -> list[str]:
    """A sentence on each claim that an evaluation of the row was asked about."""
    asked: dict[tuple[str, str], list[tuple[str, Record]]] = {}
    for run in row.runs:
        for record in run.claims:
            over = budgets_in_words(record.details)
            within = f"Within {over}, in the worst case over all: " if over else ""
            asked.setdefault((within, record.name), []).append((run.name, record))
    sentences = []
    for (within, _), of_runs in asked.items():
        records = [record for _, record in of_runs]
        if len(row.runs) == 1:
            sentences.append(within + claim_in_words(records[0]))
        elif len(records) == len(row.runs) and not row.folds:
            sentences.append(within + claim_over_seeds(records))
        else:
            sentences += [f"{name}: {within}{claim_in_words(record)}" for name, record in of_runs]
    return sentences


def over_all(rows: Sequence[TableRow]) -> str:
    """The sentence on several rows together; "" for so few attacked rows that each speaks for itself."""
    attacked = [row for row in rows if row.accuracy(WORST)]
    reliable = [row for row in attacked if not note_on(row)]
    if len(attacked) < 3:
        return ""
    budgets = listed(sorted({row.setting.budget for row in attacked}))
    doubtful = len(attacked) - len(reliable)
    beside = f" The numbers of {doubtful} are in doubt and left out." if doubtful else ""
    head = f"{len(attacked)} models were attacked within {budgets}"
    values = [accuracy.value for row in reliable if (accuracy := row.accuracy(WORST))]
    if not values:
        return f"{head}.{beside}"
    low, high = share_in_percent(min(values)), share_in_percent(max(values))
    span = low if low == high else f"{low} to {high}"
    return f"{head}: {span} of the images survived every attack tried.{beside}"


def radius_in_words(norm: str | None, eps: float | None, shape: Sequence[int] | None) -> str:
    """What an attacker within a budget may do to an image, in one sentence; "" where the budget is not known."""
    if eps is None:
        return ""
    size = radius_text(eps, norm)
    if norm == "linf":
        levels = "level" if eps * 255 == 1 else "levels"
        return (
            f"Within {size} every value of every pixel may change by up to {255 * eps:.3g} {levels} of 255, "
            f"{share_in_percent(eps)} of the way from black to white."
        )
    if norm == "l2":
        spread = ""
        if shape:
            spread = f"; spread over the whole image, {255 * eps / math.sqrt(math.prod(shape)):.2g} levels of 255 each"
        return (
            f"Within {size} the squares of all changes of pixel values add up to at most {eps:.4g}²{spread}."
        )
    if norm == "l1":
        return f"Within {size} all changes add up to what turns {size} values from black to white."
    if norm == "l0":
        return f"Within {size} the attacker chooses {size} pixels and gives them any value."
    if norm == "patch":
        return f"Within {size} the attacker places a window of {size} by {size} pixels and fills it at will."
    return ""


def pair_of(panels: Sequence[Panel]) -> list[tuple[Tile, str]]:
    """A clean image beside the same image under attack, with the answers: one that fooled where there is one.

    Nothing where no attack touched an image that was right before.
    """
    pairs = []
    for sample in (sample for panel in panels for sample in panel.samples):
        tiles = {tile.name: tile for tile in sample.tiles}
        if sample.clean.correct and "attacked" in tiles:
            pairs.append((sample, tiles))
    if not pairs:
        return []
    fooled = [pair for pair in pairs if not pair[0].attacked.correct]
    sample, tiles = (fooled or pairs)[0]
    answers = {"clean": sample.clean, "attacked": sample.attacked}
    return [
        (tiles[name], f"{name}: answered {answer.predicted} ({'right' if answer.correct else 'wrong'})")
        for name, answer in answers.items()
    ]
