"""The sentences of the page: its title, what was judged on what, and notes on what must not be taken for granted."""

import re
from collections.abc import Iterator, Sequence

from ..catalogue import METHODS, OBJECT
from ..records import WORST
from .audits import alarms_of
from .grouping import UNDEFENDED
from .runs import Run
from .tables import TableRow, listed
from .verdict import SAME_ANSWER, constant_answer

MANY_METHODS = 4  # named one by one below the title
SENTENCE_ENDS = re.compile(r"(?<=[.!?]) (?=[A-Z])")
MANY_LINES = 20  # of records that are left out, each with a note of its own


def headline(runs: Sequence[Run], evaluated: Sequence[TableRow]) -> str:
    """The title of the page."""
    data = {str(row.setting.data) for row in evaluated} or {
        str(run.config.get("data", {}).get("name", "unknown data")) for run in runs
    }
    on = listed(sorted(data))
    if not evaluated:
        return f"Training on {on}"
    if len(evaluated) == 1:
        (row,) = evaluated
        return f"How robust is {row.method if _is_object(row) else row.name} on {on}?"
    return f"How robust are these {len(evaluated)} models on {on}?"


def summary(rows: Sequence[TableRow], evaluated: Sequence[TableRow]) -> str:
    """The sentence below the title: which models, trained how, were judged on what."""
    if not evaluated:
        return f"{_count(len(rows), 'run')} trained, none evaluated yet."
    models = listed(sorted({_model_of(row) for row in evaluated}))
    names = list(dict.fromkeys(row.method for row in evaluated if not _is_object(row)))
    defended = [name for name in names if name != UNDEFENDED]
    methods = listed(defended) if len(names) <= MANY_METHODS else f"{len(names)} methods"
    ways = [] if methods in ("", models, evaluated[0].name) else [f"with {methods}"]
    if UNDEFENDED in names and len(names) <= MANY_METHODS:
        ways.append(UNDEFENDED)
    trained = f", trained {listed(ways)}" if ways else ""
    settings = listed(list(dict.fromkeys(map(_judged_on, evaluated))))
    return f"{models}{trained}, judged on {settings}."


def _is_object(row: TableRow) -> bool:
    """Whether the model of a row was an object of a Python program, whose training nothing is known of."""
    return str(row.shown[0].details.get("model")).startswith(OBJECT)


def _model_of(row: TableRow) -> str:
    """The network of a row in words."""
    model = str(row.shown[0].details.get("model", "unknown model"))
    return f"{model.rpartition('.')[2]}, a model in Python" if _is_object(row) else model


def _judged_on(row: TableRow) -> str:
    """The images and the budget of a row, in words."""
    s = row.setting
    folds = f" in {s.folds}" if s.folds else ""
    images = f"{row.n:,} {s.split} images of {s.data}{folds}{s.size}"
    if row.accuracy(WORST) is None:
        return f"{images}, not attacked"
    return f"{images}, attacked within {s.budget}{s.search}"


def notes_on(runs: Sequence[Run], evaluated: Sequence[TableRow]) -> list[tuple[str, str]]:
    """Notes on whatever is missing or must not be compared: each a sentence, and a command or ""."""
    # doubts first: they say whether the numbers below mean anything
    notes = [(f"“{row.label}”, {name}: {seen}", "") for row, name, seen, _ in _doubts(evaluated)]
    notes += [(_alarm(row.label, alarms), "") for row in evaluated if (alarms := alarms_of(row))]
    notes += [(text, "") for run in runs for text in _left_out(run)]
    notes += [(f"{run.name} is not evaluated yet:", run.evaluate_command) for run in runs if not run.shown]
    if len({row.setting for row in evaluated}) > 1:
        notes.append(("The methods were judged in different settings: compare only rows of one setting.", ""))
    notes += [(text, "") for row in evaluated if (text := on_estimates(row))]
    if len({row.n for row in evaluated}) > 1:
        notes.append(("The methods were judged on different numbers of images.", ""))
    if len({str(row.shown[0].details.get("weights")) for row in evaluated}) > 1:
        notes.append(("Some rows show the best weights of a run, others the last ones (see Provenance).", ""))
    notes += [(text, "") for text in _on_clean_images(evaluated)]
    notes += [
        (f"{run.name}: {a.problem}; it is left out.", "") for run in runs for a in run.artifacts if a.problem
    ]
    return notes


def advice_on(evaluated: Sequence[TableRow]) -> list[str]:
    """What who made a model may do about the doubts, each as a sentence with the doubt that it belongs to."""
    return [f"“{row.label}”, {name}: {advice}" for row, name, _, advice in _doubts(evaluated) if advice]


def methods_in_words(evaluated: Sequence[TableRow]) -> list[tuple[str, str]]:
    """The methods of the rows and what each does, of those that the catalogue knows."""
    entries = sorted(METHODS.values(), key=lambda entry: -len(entry.title))
    told = {}
    for row in evaluated:
        name = row.method.partition(",")[0].partition(" ")[0]
        known = [entry for entry in entries if entry.title == name]
        if known:
            told[name] = known[0].sentence
    return list(told.items())


def _doubts(evaluated: Sequence[TableRow]) -> Iterator[tuple[TableRow, str, str, str]]:
    """Each doubt about a row: its name, what was seen, and what to do, which is all but its first sentence.

    Of a model that gives one answer only that is said: all other doubts follow from it.
    """
    for row in evaluated:
        doubts = row.shown[0].details.get("doubts") or {}
        if constant_answer(row):
            doubts = {SAME_ANSWER: doubts[SAME_ANSWER]}
        for name, text in doubts.items():
            seen, *advice = SENTENCE_ENDS.split(text, maxsplit=1)
            yield row, name, seen, "".join(advice)


def _on_clean_images(evaluated: Sequence[TableRow]) -> list[str]:
    """A sentence on the rows that no attack was tried on; none where there are none."""
    names = [f"“{row.label}”" for row in evaluated if row.accuracy(WORST) is None]
    if len(names) > MANY_METHODS:
        return [f"{len(names)} of the {len(evaluated)} models were judged on clean images only."]
    verb = "was" if len(names) == 1 else "were"
    return [f"{listed(names)} {verb} judged on clean images only."] if names else []


def _alarm(label: str, alarms: Sequence[str]) -> str:
    """A sentence on the behaviours that an audit calls suspicious."""
    held = listed([f"“{alarm}”" for alarm in alarms])
    return (
        f"“{label}”, audit: what should hold does not: {held}. Attacks may fail although adversarial images exist: see "
        "Audit."
    )


def _left_out(run: Run) -> list[str]:
    """What the page cannot use of a run's records: the first lines by name, and how many more there are."""
    said = [f"{run.name}, records.jsonl, {text}; it is left out." for text in run.left_out[:MANY_LINES]]
    more = len(run.left_out) - MANY_LINES
    return [*said, f"{run.name}, records.jsonl: {_count(more, 'more line')} left out."] if more > 0 else said


def on_estimates(row: TableRow) -> str:
    """A sentence on the samples that some accuracies of a row are estimated from; "" where all are exact."""
    metrics = [
        record
        for evaluation in row.shown
        for record in evaluation.metrics.values()
        if "estimate" in record.details
    ]
    if not metrics:
        return ""
    details = metrics[0].details
    counts = details["estimate"]
    whom = "some survivors of each run"
    if len(row.shown) == 1:
        whom = f"{counts['tried']:,} of {counts['survivors']:,} survivors"
    return (
        f"“{row.label}”: {whom}, drawn at random, met {listed(details['sampled']['dear'])}. Accuracies that rest on "
        "these attacks are estimates, and are not compared image by image."
    )


def _count(n: int, noun: str) -> str:
    """A number with its noun, such as "1 run" or "2 runs"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
