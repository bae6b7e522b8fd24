"""Runs grouped into the rows of a table: those that differ only in their seed and fold, and in what rows differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..dotted_names import flatten
from ..numerals import read_fold
from ..records import fingerprint
from ..renamed_settings import in_current_words, in_first_words
from ..rundir import NOT_IDENTITY
from .runs import Evaluation, Run
from .tables import TableRow

# Runs that differ only in these settings count as the same method.
NOT_METHOD = ("seed", *NOT_IDENTITY)
UNDEFENDED = "without defence"
SHOWN_AS = {"clean": UNDEFENDED}
"""Methods that a page calls otherwise than their records, since "clean" is the name of a column."""


def group(runs: Iterable[Run]) -> list[TableRow]:
    """The rows of the table, each of which gathers runs that differ only in their seed and fold, in the given order.

    A run whose seed and fold are in the row already starts another row, since copies of a run are no further evidence.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        judged = [_judged(evaluation, run.fold) for evaluation in (run.shown, run.of_parts, run.of_radii)]
        key = fingerprint([_method(run.config), *judged])
        while any((other.seed, other.fold) == (run.seed, run.fold) for other in members.get(key, [])):
            key += "+"
        members.setdefault(key, []).append(run)
    rows = [_row(runs) for runs in members.values()]
    methods = [row.method for row in rows]
    return [replace(r, label=f"{r.method} ({r.name})") if methods.count(r.method) > 1 else r for r in rows]


def _row(runs: Sequence[Run]) -> TableRow:
    """The row of some runs, labelled by their method."""
    evaluation = runs[0].shown
    method = str(evaluation.details.get("method", runs[0].name)) if evaluation else runs[0].name
    shown = SHOWN_AS.get(method, method)
    return TableRow(shown, runs, shown)


def _method(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make up the method of a run, without those that do not matter to it."""
    # Old names are replaced and younger settings at their defaults left out, so that runs of any age compare.
    settings = in_current_words(in_first_words(config))
    method = {key: value for key, value in flatten(settings).items() if not _ignored(key)}
    if method.get("data.fold") is not None:
        method["data.fold"] = f"of {read_fold(method['data.fold'])[1]}"
    return method


def _ignored(key: str) -> bool:
    """Whether a setting does not belong to the method."""
    return any(key == name or key.startswith(f"{name}.") for name in NOT_METHOD)


def _judged(evaluation: Evaluation | None, fold: str | None) -> object:
    """Everything about an evaluation that has to be the same in all runs of a row.

    Runs of a cross-validation are judged on their own folds, which differ in size.
    """
    if evaluation is None:
        return None
    shared = [
        evaluation.details.get(k)
        for k in (
            "method",
            "model",
            "data",
            "split",
            "shape",
            "norm",
            "eps",
            "eps_low",
            "weights",
            "radii",
            "sampled",
        )
    ]
    images = evaluation.n if fold is None else evaluation.details.get("fold") == fold
    return [shared, images, sorted(evaluation.metrics), sorted(evaluation.parts)]


def differences(rows: Sequence[TableRow]) -> list[tuple[str, list[Any]]]:
    """Every setting in which the rows differ, with its value in each row.

    Readers need them to judge whether a comparison is fair.
    """
    flats = [_method(row.runs[0].config) for row in rows]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    table = [(key, [flat.get(key) for flat in flats]) for key in keys]
    return [(key, values) for key, values in table if any(value != values[0] for value in values)]
