"""Which weights of a training its columns judge: the last, the best and averaged ones, all of the same training."""

from collections.abc import Mapping, Sequence

from ..config import Config
from ..records import Record
from .cells import Column

WEIGHTS = {
    "last": "of the last epoch, as the optimiser left them",
    "best": "of the epoch that was best on validation images; they are averaged where the training averages",
    "averaged": "averaged over the training, after its last epoch",
}
"""The weights that a column may be judged by, and what they are."""

ABSENT = "absent"  # the kind of record that says why a cell has no number
NOT_AVERAGED = "not averaged"


def by_weights(columns: Mapping[str, Column], weights: Sequence[str]) -> dict[str, Column]:
    """Each column, and behind it the same column by the other weights: "PGD-20", "PGD-20 best".

    The first of the weights has the plain name, under which columns were kept before there was a choice. A column that
    names its weights has no others, and what is read off a run is no matter of weights.
    """
    result: dict[str, Column] = {}
    for column, what in columns.items():
        if callable(what) or not weights:
            result[column] = what
            continue
        settings = what if isinstance(what, Mapping) else {"attacks": what}
        if "weights" in settings:
            result[column] = what
            continue
        for number, name in enumerate(weights):
            result[f"{column} {name}" if number else column] = {**settings, "weights": name}
    return result


def plain(column: str) -> str:
    """The column without the word for its weights: "PGD-20" of "PGD-20 best"."""
    head, _, last = column.rpartition(" ")
    return head if head and last in WEIGHTS else column


def of_run(columns: Mapping[str, Column], config: Config) -> tuple[dict[str, Column], dict[str, Record]]:
    """The columns as an evaluation of this run judges them; and column -> why it has no number, of the others."""
    judged, absent = {}, {}
    for column, what in columns.items():
        if callable(what) or not isinstance(what, Mapping) or "weights" not in what:
            judged[column] = what
            continue
        stored = _stored_as(what["weights"], config)
        if stored is None:
            absent[column] = Record(ABSENT, column, details={"reason": NOT_AVERAGED})
        else:
            judged[column] = {**what, "weights": stored}
    return judged, absent


def _stored_as(weights: str, config: Config) -> str | None:
    """The value of ``evaluate.weights`` that judges these weights of a run; None where the run does not have them."""
    averages = config.train.ema is not None
    if weights == "averaged":
        return "last" if averages else None
    return "unaveraged" if weights == "last" and averages else weights
