"""The verdict on a row of the page: a word, a number that it rests on, a colour, and what else must be known."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..claims import CONSISTENT
from ..records import CLEAN, WORST
from ..statistics import wilson
from .audits import Broken, alarms_of, audit_in_words, broken_by
from .class_names import called
from .tables import TableAccuracy, TableRow, listed, metric_names

FALLS, STANDS = 0.1, 0.9
"""Of what was right before: below this share that survives a model is called not robust, and from that on robust."""
GREEN, AMBER, RED, GREY = "green", "amber", "red", "grey"
ROBUST, IN_PART = "Robust against these attacks", "Robust in part"
SAME_ANSWER = "answers hardly vary"
"""The doubt about a model that gives nearly always the same answer."""
HOW_MANY = re.compile(r"the model answers ([\d,]+) of ([\d,]+) clean images with (['\"])(.+?)\3, which ")


@dataclass(frozen=True)
class RowVerdict:
    """What the page says of a row before everything else.

    Attributes:
        word: the answer to the question whether the model is robust.
        number: the number that the answer rests on, with its interval and n, in words.
        colour: ``GREEN`` where nearly all right answers survive or every claim is consistent, ``AMBER`` where a part
            survives, ``RED`` where none does or the number is in doubt, ``GREY`` where nothing was tried.
        struck: a number that says nothing, which the page strikes out; "" where the number counts.
        sentences: what else must be known.
    """

    word: str
    number: str
    colour: str
    struck: str
    sentences: Sequence[str]


def verdict_on(row: TableRow, meaning: str = "") -> RowVerdict:
    """The verdict on a row: what survives, how sure that is, what was tried, and what was lost.

    Args:
        row: the row.
        meaning: a sentence on what the radius means; "" where it is said elsewhere.
    """
    clean, worst = row.accuracy(CLEAN), row.accuracy(WORST)
    guessing = [] if row.chance is None else [f"Chance is {share_in_percent(row.chance)}."]
    if worst is None:
        right = f"the model is right on {in_percent(clean)} of {row.n:,} images{_interval(clean)}"
        return RowVerdict("Not attacked yet", right, GREY, "", guessing)
    survived = _survived(row, worst)
    tried = [f"Tried within {row.setting.budget}: {_names_of_attacks(row)}.", *filter(None, [meaning])]
    always = constant_answer(row)
    if always:
        return RowVerdict("Not a working classifier", always, RED, survived, [*guessing, *tried])
    broken = broken_by(row)
    if broken:
        word = "Not robust" if 1 - broken.share < FALLS else "In doubt"
        return RowVerdict(word, _beaten(broken), RED, survived, [*tried, *guessing, audit_in_words(row)])
    if worst.value == 0:
        return RowVerdict(
            "Not robust", "every image was fooled", RED, "", [f"{survived}.", *tried, *_lost(clean, worst)]
        )
    word, after = _word(row, clean, worst)
    weakest = _weakest_class(row) if word in (ROBUST, IN_PART) else []
    rest = [*tried, *_lost(clean, worst), *weakest, *guessing, "A stronger attack can only lower this."]
    return RowVerdict(word, survived + after, _colour(row, word), "", [*rest, audit_in_words(row)])


def note_on(row: TableRow) -> str:
    """What must travel with the number of a row wherever it is copied; "" where nothing must."""
    if row.accuracy(WORST) is None:
        return ""
    always = constant_answer(row)
    if always:
        return f"no working classifier: {always}"
    broken = broken_by(row)
    if broken:
        return f"unreliable: {_beaten(broken)}"
    reasons = [*(row.shown[0].details.get("doubts") or {}), *(f"audit: {name}" for name in alarms_of(row))]
    return f"in doubt: {'; '.join(reasons)}" if reasons else ""


def constant_answer(row: TableRow) -> str:
    """Which answer a model gives to nearly all images, in words; "" where it does not, or classifies all the same."""
    doubts = row.shown[0].details.get("doubts") or {}
    clean = row.accuracy(CLEAN)
    if SAME_ANSWER not in doubts or (row.chance is not None and clean and _least(clean) > row.chance):
        return ""
    counted = HOW_MANY.match(doubts[SAME_ANSWER])
    if counted is None:
        return "its answers hardly depend on the image"
    count, n, _, answer = counted.groups()
    images = f"all {n} images" if count == n else f"{count} of {n} images"
    return f"it answers '{called(answer)}' to {images}"


def attacks_of(row: TableRow) -> list[str]:
    """The names of the attacks that were tried on a row."""
    return [name for name in metric_names([row]) if name not in (CLEAN, WORST)]


def how_many_tried(row: TableRow) -> str:
    """What a row survived, such as "both attacks tried"."""
    count = len(attacks_of(row))
    return {0: "every attack tried", 1: "the one attack tried", 2: "both attacks tried"}.get(
        count, f"all {count} attacks tried"
    )


def share_in_percent(share: float) -> str:
    """A share in per cent, such as "47.3 %", which no line breaks apart."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def in_percent(accuracy: TableAccuracy | None) -> str:
    """An accuracy in per cent; a dash for None."""
    return "—" if accuracy is None else share_in_percent(accuracy.value)


def _word(row: TableRow, clean: TableAccuracy | None, worst: TableAccuracy) -> tuple[str, str]:
    """The answer to the question whether the model of a row is robust, and what follows the number."""
    chance = row.chance
    if chance is not None and clean is not None and _least(clean) <= chance:
        return "No robustness is shown", "; even without an attack the model may do no better than chance"
    if chance is not None and worst.high is not None and worst.high <= chance:
        return "Not robust", ", no more than chance"
    if chance is not None and _least(worst) <= chance:
        return "Not shown to be robust", ", perhaps no more than chance"
    if row.shown[0].details.get("doubts") or alarms_of(row):
        return "In doubt", ", but the number may say more than there is"
    share = _of_right_answers(clean, worst)
    if share < FALLS:
        return "Not robust", ""
    return (IN_PART if share < STANDS else ROBUST), ""


def _colour(row: TableRow, word: str) -> str:
    """The colour of a verdict that rests on what survived."""
    claims = [record for run in row.runs for record in run.claims]
    if word == ROBUST:
        return GREEN
    if word == IN_PART:
        consistent = bool(claims) and all(record.details["verdict"] == CONSISTENT for record in claims)
        return GREEN if consistent else AMBER
    return RED


def _survived(row: TableRow, worst: TableAccuracy) -> str:
    """The share of all images that survived, with its interval."""
    about = "about " if worst.estimated else ""
    seeds = f", on average over {row.seed_count} trainings," if row.seed_count > 1 else ""
    return f"{about}{in_percent(worst)} of {row.n:,} images{seeds} survived {how_many_tried(row)}{_interval(worst)}"


def _names_of_attacks(row: TableRow) -> str:
    return listed(attacks_of(row)) or "not recorded"


def _lost(clean: TableAccuracy | None, worst: TableAccuracy) -> list[str]:
    """A sentence on the right answers that attacks took."""
    if clean is None or not clean.value:
        return []
    before = f"It was right on {in_percent(clean)} before"
    if worst.value == 0:
        return [f"{before}."]
    lost = 100 * (1 - _of_right_answers(clean, worst))
    return [f"{before}, so {lost:.0f} of 100 right answers were lost."]


def _of_right_answers(clean: TableAccuracy | None, worst: TableAccuracy) -> float:
    return worst.value / clean.value if clean and clean.value else worst.value


def _weakest_class(row: TableRow) -> list[str]:
    """A sentence on the class that survives least, where it lies far below the rest.

    Far is where the upper end of its 95 % interval is below half of what survives of all other classes together.
    """
    counts = {name: count for name, count in row.per_class(WORST).items() if count[1]}
    if len(counts) < 2:
        return []
    name, (stand, n) = min(counts.items(), key=lambda item: item[1][0] / item[1][1])
    others = [count for other, count in counts.items() if other != name]
    rest = sum(stands for stands, _ in others) / sum(images for _, images in others)
    if wilson(round(stand), n)[1] >= rest / 2:
        return []
    survivors = f"{stand:.0f} of {n} survived, of all others {share_in_percent(rest)}"
    return [f"Far below the rest is class {called(name)}: {survivors}."]


def _beaten(broken: Broken) -> str:
    """What an attack of the audit fools, in words."""
    return (
        f"the audit's {broken.attack} fools {100 * broken.share:.0f} % of the right answers "
        f"({broken.fooled} of {broken.n}), the evaluation's attacks {100 * broken.before:.0f} %"
    )


def _interval(accuracy: TableAccuracy | None) -> str:
    """The interval of an accuracy in brackets; "" where there is none."""
    if accuracy is None or accuracy.low is None or accuracy.high is None:
        return ""
    return f" (95 % interval {100 * accuracy.low:.1f} to {share_in_percent(accuracy.high)})"


def _least(accuracy: TableAccuracy) -> float:
    """The lower end of an interval; the value itself where there is none."""
    return accuracy.value if accuracy.low is None else accuracy.low
