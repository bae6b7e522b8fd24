"""The first glance at a page: a verdict in words, a bar for each row, and what the radius of the budget means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..claims import claim_in_words, claim_over_seeds
from ..records import CLEAN, WORST, Record
from .audits import alarms_of, audit_in_words
from .panel import Panel, Tile
from .setting import budgets_in_words, radius_text
from .tables import TableAccuracy, TableRow, listed, metric_names

FALLS, STANDS = 0.1, 0.9
"""Of what was right before: below this share that survives a model is called not robust, and from that on robust."""


@dataclass(frozen=True)
class AccuracyBar:
    """The bar of a row, from its clean accuracy to its worst case.

    Attributes:
        label: the name of the row.
        clean: the accuracy before any attack; None where it was not measured.
        worst: what survives every attack; None where none was tried.
        chance: what the most frequent answer alone reaches, in [0, 1]; None where the classes are not known.
    """

    label: str
    clean: TableAccuracy | None
    worst: TableAccuracy | None
    chance: float | None

    @property
    def words(self) -> str:
        """The bar for those who do not see it, and beside it."""
        if self.worst is None:
            return f"right on {in_percent(self.clean)}, no attack tried"
        before = "" if self.clean is None else f"right on {in_percent(self.clean)} before; "
        return f"{before}{in_percent(self.worst)} survive every attack"


@dataclass(frozen=True)
class RowVerdict:
    """What the page says of a row before everything else.

    Attributes:
        word: the answer to the question whether the model is robust.
        holds: whether the answer is that it is, at least in part.
        sentences: what it rests on.
    """

    word: str
    holds: bool
    sentences: Sequence[str]


def bars_of(rows: Sequence[TableRow]) -> list[AccuracyBar]:
    """The bar of each row."""
    return [AccuracyBar(row.label, row.accuracy(CLEAN), row.accuracy(WORST), row.chance) for row in rows]


def verdict_on(row: TableRow) -> RowVerdict:
    """The verdict on a row: what survives, how sure that is, what chance reaches and what was tried."""
    clean, worst, chance = row.accuracy(CLEAN), row.accuracy(WORST), row.chance
    guessing = [] if chance is None else [f"Chance is {share_in_percent(chance)}."]
    if worst is None:
        right = f"The model is right on {in_percent(clean)} of {row.n:,} images{_interval(clean)}."
        return RowVerdict("Not attacked yet", False, [right, *guessing])
    about = "about " if worst.estimated else ""
    seeds = f", on average over {row.seed_count} trainings," if row.seed_count > 1 else ""
    survivors = (
        f"Of {row.n:,} images{seeds} {about}{in_percent(worst)} survive every attack within {row.setting.budget}"
        f"{_interval(worst)}."
    )
    before = [] if clean is None else [f"The model was right on {in_percent(clean)} before."]
    attacks = [name for name in metric_names([row]) if name not in (CLEAN, WORST)]
    tried = [f"Tried: {listed(attacks)}. A stronger attack can only lower this."] if attacks else []
    word, holds = _word(row, clean, worst, chance)
    return RowVerdict(word, holds, [survivors, *guessing, *before, *tried, audit_in_words(row)])


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


def _word(
    row: TableRow, clean: TableAccuracy | None, worst: TableAccuracy, chance: float | None
) -> tuple[str, bool]:
    """The answer to the question whether the model of a row is robust, and whether it says yes at all."""
    if chance is not None and clean is not None and _least(clean) <= chance:
        return "No robustness is shown: even without an attack the model may do no better than chance", False
    if chance is not None and worst.high is not None and worst.high <= chance:
        return "Not robust: what survives is no more than chance", False
    if chance is not None and _least(worst) <= chance:
        return "Not shown to be robust: what survives may be no more than chance", False
    if row.shown[0].details.get("doubts") or alarms_of(row):
        return "In doubt: the number may say more than there is", False
    share = worst.value / clean.value if clean and clean.value else worst.value
    if share < FALLS:
        return f"Not robust: {100 * (1 - share):.0f} % of its right answers fall", False
    if share < STANDS:
        return f"Robust in part: {100 * share:.0f} % of its right answers survive these attacks", True
    return f"Robust against these attacks: {100 * share:.0f} % of its right answers survive them", True


def over_all(rows: Sequence[TableRow]) -> str:
    """The sentence on several rows together; "" where there are none that were attacked."""
    values = [accuracy.value for row in rows if (accuracy := row.accuracy(WORST))]
    budgets = sorted({row.setting.budget for row in rows if row.accuracy(WORST)})
    if len(values) < 2:
        return ""
    low, high = share_in_percent(min(values)), share_in_percent(max(values))
    span = low if low == high else f"{low} to {high}"
    return (
        f"{len(values)} models were attacked within {listed(budgets)}: {span} of the images survive every attack. "
        "A stronger attack can only lower this."
    )


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


def share_in_percent(share: float) -> str:
    """A share in per cent, such as "47.3 %", which no line breaks apart."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def in_percent(accuracy: TableAccuracy | None) -> str:
    """An accuracy in per cent; a dash for None."""
    return "—" if accuracy is None else share_in_percent(accuracy.value)


def _interval(accuracy: TableAccuracy | None) -> str:
    """The interval of an accuracy in brackets; "" where there is none."""
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return ""
    return f" (95 % interval {100 * accuracy.low:.1f} to {share_in_percent(accuracy.high)})"


def _least(accuracy: TableAccuracy) -> float:
    """The lower end of an interval; the value itself where there is none."""
    return accuracy.value if accuracy.low is None else accuracy.low
