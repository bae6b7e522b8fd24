"""Which rows of the page can be told apart: by their intervals, image by image, and over trainings."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from ..statistics import (
    FEWEST_TRAININGS,
    Difference,
    holm,
    mcnemar,
    paired_difference,
    welch,
)
from .tables import TableAccuracy, TableRow, listed

ASKS = {
    "McNemar": "McNemar's test asks whether other images would tell these very models apart.",
    "Wald": "Wald's test asks the same where answers are random.",
    "Welch": "Welch's test asks whether other trainings would tell the methods apart on these images.",
}
MANY_PAIRS = 6
FEW_PAIRS = 2
"""So many pairs have a sentence each; more of them are a matrix."""


def ranked_in_words(rows: Sequence[TableRow], name: str) -> list[str]:
    """Sentences that say which rows the metric can tell apart, within each setting."""
    sentences = []
    for setting in dict.fromkeys(row.setting for row in rows):
        here = [
            (row, accuracy) for row in rows if row.setting == setting and (accuracy := row.accuracy(name))
        ]
        here.sort(key=lambda pair: -pair[1].value)
        if len(here) > 1:
            sentences.append(_compare(here))
    return sentences


class PairTest(NamedTuple):
    """Two rows of a table, and a test of their difference.

    Attributes:
        words: which rows, on what, and what was seen.
        name: the test, such as "McNemar".
        p: its p-value, by itself.
        difference: the difference and how far the data leave it open.
        first, second: the labels of the rows; the difference is the first minus the second.
    """

    words: str
    name: str
    p: float
    difference: Difference
    first: str = ""
    second: str = ""


class Cell(NamedTuple):
    """A pair of rows in a matrix of tests.

    Attributes:
        points: the row's accuracy minus the column's, in points, with its sign.
        decided: whether there is a difference, after correction.
        words: the test in words, for a title and for those who do not see the table.
    """

    points: str
    decided: bool
    words: str


class Matrix(NamedTuple):
    """The tests of many pairs as a table: the labels of its rows and columns, and a cell for each pair both ways."""

    labels: Sequence[str]
    cells: Mapping[tuple[str, str], Cell]


def paired(
    rows: Sequence[TableRow], read: Callable[[TableRow], Mapping[str, float] | None]
) -> list[PairTest]:
    """Tests of rows of one seed each, on the very same images, in the worst case: McNemar's, or Wald's of shares.

    Args:
        rows: the rows that are evaluated.
        read: a function from a row to a mapping from each image to 1 if it stands and to 0 if it fell; or, of a model
            whose answers are random, to the share of its draws that stand. It returns None where this is not known.
    """
    tests = []
    known = []
    for row in rows:
        outcomes = read(row) if row.seed_count == 1 else None
        if outcomes:
            known.append((row, outcomes))
    for (first_row, first), (second_row, second) in combinations(known, 2):
        if first_row.setting != second_row.setting or first.keys() != second.keys():
            continue
        first_stands, second_stands = list(first.values()), [second[i] for i in first]
        difference = paired_difference([(first_stands, second_stands)])
        who = f"“{first_row.label}” against “{second_row.label}” on the same {len(first):,} images"
        if not {*first_stands, *second_stands} <= {0, 1}:
            low, high = (100 * end for end in difference.interval)
            words = f"{who}: {100 * difference.mean:+.2f} points, {low:+.2f} to {high:+.2f}"
            tests.append(PairTest(words, "Wald", difference.p, difference, first_row.label, second_row.label))
            continue
        both_stand = sum(map(min, first_stands, second_stands))
        only_first = int(sum(first_stands) - both_stand)
        only_second = int(sum(second_stands) - both_stand)
        words = f"{who}: {only_first} stand only in the first, {only_second} only in the second"
        p = mcnemar(only_first, only_second)
        tests.append(PairTest(words, "McNemar", p, difference, first_row.label, second_row.label))
    return tests


def seed_tests(rows: Sequence[TableRow], name: str) -> list[PairTest]:
    """Welch's tests over the seeds of rows that have enough of them, in a metric."""
    tests = []
    known = [(row, row.values(name)) for row in rows if len(row.values(name)) >= FEWEST_TRAININGS]
    for (first_row, first), (second_row, second) in combinations(known, 2):
        if (first_row.setting, first_row.n) != (second_row.setting, second_row.n):
            continue
        difference = welch(first, second)
        low, high = (100 * end for end in difference.interval)
        trainings = "seeds" if first_row.folds else "trainings"
        words = (
            f"“{first_row.label}” against “{second_row.label}” over {len(first)} and {len(second)} {trainings}: "
            f"{100 * difference.mean:+.2f} points, {low:+.2f} to {high:+.2f}"
        )
        tests.append(PairTest(words, "Welch", difference.p, difference, first_row.label, second_row.label))
    return tests


def verdicts(
    groups: Sequence[Sequence[PairTest]], margin: float | None = None
) -> tuple[list[list[str] | Matrix], str]:
    """What a page says of the tests that it shows, corrected for how many these are.

    Args:
        groups: the tests by the place where they are shown.
        margin: the difference that would matter, in (0, 1), for tests that there is none; None: none was stated.

    Returns:
        For each group a sentence per pair, or a matrix where pairs are more than ``FEW_PAIRS``; and a sentence that
        names the family of tests, "" where nothing is tested.
    """
    tests = [test for group in groups for test in group]
    family = holm([test.p for test in tests])
    equivalences: Sequence[float | None] = [None] * len(tests)
    if margin is not None:
        equivalences = holm([test.difference.p_equivalent(margin) for test in tests])
    corrected = iter(zip(family, equivalences, strict=True))
    shown: list[list[str] | Matrix] = []
    for group in groups:
        judged = [(test, *next(corrected)) for test in group]
        sentences = [f"{test.words} ({_verdict(test, p, same, margin)})" for test, p, same in judged]
        if len(group) > FEW_PAIRS:
            shown.append(_matrix([(test, p) for test, p, _ in judged], sentences))
        else:
            shown.append(sentences)
    kinds = listed([f"{name}'s" for name in dict.fromkeys(test.name for test in tests)])
    many = f"the {len(family)} tests" if len(family) > 1 else "the one test"
    beside = "" if margin is None else ", and over as many of no difference"
    return shown, f"Holm's correction is over {many} on this page ({kinds}){beside}" if family else ""


def told_apart(groups: Sequence[Sequence[PairTest]]) -> str:
    """A sentence that says whether tests tell rows apart in the worst case; "" where none was made.

    Args:
        groups: the tests of a page: of clean accuracy over trainings first, then those of the worst case. The
            correction is over all of them.
    """
    corrected = holm([test.p for group in groups for test in group])[len(groups[0]) :]
    tests = [test for group in groups[1:] for test in group]
    decided = [test for test, p in zip(tests, corrected, strict=True) if p < 0.05]
    if len(tests) > 1:
        return f"Tests of the worst case tell {len(decided)} of {len(tests)} pairs apart."
    if not tests:
        return ""
    test = tests[0]
    if not decided:
        open_to = f"{100 * test.difference.decided_margin:.1f}"
        return (
            f"No difference found between “{test.first}” and “{test.second}” ({_in_points(test)}; up to {open_to} "
            "either way are left open)."
        )
    better, worse = (test.first, test.second) if test.difference.mean > 0 else (test.second, test.first)
    return f"“{better}” does better than “{worse}”, by {_in_points(test)}: more than luck explains."


def explained(groups: Sequence[Sequence[PairTest]]) -> str:
    """What the tests of a page ask, each kind that was made once."""
    names = dict.fromkeys(test.name for group in groups for test in group)
    return " ".join(ASKS[name] for name in names)


def _in_points(test: PairTest) -> str:
    points = f"{100 * abs(test.difference.mean):.1f}"
    return f"{points} point{'' if points == '1.0' else 's'}"


def _matrix(judged: Sequence[tuple[PairTest, float]], sentences: Sequence[str]) -> Matrix:
    """The matrix of some tests with their corrected p-values and their sentences."""
    labels = dict.fromkeys(label for test, _ in judged for label in (test.first, test.second))
    cells = {}
    for (test, p), words in zip(judged, sentences, strict=True):
        points = 100 * test.difference.mean
        cells[test.first, test.second] = Cell(f"{points:+.1f}", p < 0.05, words)
        cells[test.second, test.first] = Cell(f"{-points:+.1f}", p < 0.05, words)
    return Matrix(list(labels), cells)


def _verdict(test: PairTest, corrected: float, equivalent: float | None, margin: float | None) -> str:
    """What a test says, by itself and in its family; whether there is none beyond the margin; what is ruled out."""
    decided = f"no more than {100 * test.difference.decided_margin:.1f} points either way"
    verdict = "a difference" if corrected < 0.05 else f"not decided; {decided}, by two one-sided tests at 5 %"
    text = f"{test.name} p = {test.p:.2g}, by Holm {corrected:.2g}: {verdict}"
    if margin is None or equivalent is None:
        return text
    within = "the same" if equivalent < 0.05 else "not decided"
    return f"{text}; within ±{100 * margin:.2g} points {within}, by Holm {equivalent:.2g}"


def _overlaps(overlapping: Mapping[str, list[str]], count: int) -> str:
    """A clause that says which of ``count`` rows have overlapping intervals, in as few words as possible."""
    pairs = sum(map(len, overlapping.values()))
    if count > 2 and pairs == count * (count - 1) // 2:
        return f"the 95 % intervals of all {count} overlap"
    if pairs > MANY_PAIRS:
        first, others = next(iter(overlapping.items()))
        return (
            f"{pairs} pairs of 95 % intervals overlap, {first} with {len(others)} of the {count - 1} others"
        )
    return f"95 % intervals overlap: {'; '.join(f'{label} with {listed(them)}' for label, them in overlapping.items())}"


def _compare(ranked: list[tuple[TableRow, TableAccuracy]]) -> str:
    """The sentence that says which rows, the best first, have intervals that overlap."""
    without = [row for row, a in ranked if a.low is None]
    ranked = [(row, a) for row, a in ranked if a.low is not None]
    overlapping = {}
    for i, (row, accuracy) in enumerate(ranked):
        below = [f"“{other.label}”" for other, a in ranked[i + 1 :] if _overlap(a, accuracy)]
        if below:
            overlapping[f"“{row.label}”"] = below
    if overlapping:
        text = f"{_overlaps(overlapping, len(ranked))}. Do not read these differences as gains."
    elif len(ranked) > 1:
        order = ", ".join(f"“{row.label}”" for row, _ in ranked)
        pairs = len(ranked) * (len(ranked) - 1) // 2
        text = (
            f"no 95 % intervals overlap; the best first: {order}. Each interval is its row's alone, without a "
            f"correction for the {f'{pairs} pairs' if pairs > 1 else 'pair'}: that is no test of a difference."
        )
    else:
        text = "nothing to compare."
    if without:
        text += f" No interval was recorded for {listed([f'“{row.label}”' for row in without])}."
    return text


def _overlap(lower: TableAccuracy, higher: TableAccuracy) -> bool:
    """Whether the intervals of two accuracies overlap."""
    assert lower.high is not None
    assert higher.low is not None
    return lower.high >= higher.low
