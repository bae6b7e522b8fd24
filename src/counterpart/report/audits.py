"""Audits on the page: the behaviours of each as a table, and beside the verdict what they came to."""

from typing import NamedTuple

from ..records import Record
from .tables import TableRow

ASKED = "whether these attacks can be trusted"


class ShownBehaviour(NamedTuple):
    """A behaviour as the page shows it.

    Attributes:
        name: its name.
        numbers: its numbers in words.
        n: the number of images; None where it is not known.
        honest: whether it is as it should be; None where images are too few to tell.
        verdict: what it means.
    """

    name: str
    numbers: str
    n: int | None
    honest: bool | None
    verdict: str


def shown_behaviour(record: Record) -> ShownBehaviour:
    """The behaviour that a record holds."""
    numbers = "; ".join(f"{name} {value:.1%}" for name, value in record.details["numbers"].items())
    honest = None if record.value is None else bool(record.value)
    return ShownBehaviour(
        record.name.removeprefix("audit/"), numbers, record.n, honest, str(record.details["verdict"])
    )


def behaviours_of(row: TableRow) -> list[Record]:
    """The behaviours that were audited of a row's runs, in the norm that the row was judged in."""
    norm = row.setting.norm
    return [record for run in row.runs for record in run.audit if record.details.get("norm", norm) == norm]


def alarms_of(row: TableRow) -> list[str]:
    """The names of the behaviours of a row that are suspicious, each once."""
    suspicious = [record for record in behaviours_of(row) if record.value == 0]
    return list(dict.fromkeys(record.name.removeprefix("audit/") for record in suspicious))


def audit_in_words(row: TableRow) -> str:
    """What an audit of a row came to, in a sentence."""
    behaviours = behaviours_of(row)
    if not behaviours:
        return f"No audit checked {ASKED}."
    names = {record.name for record in behaviours}
    alarms = alarms_of(row)
    if alarms:
        verb = "is" if len(alarms) == 1 else "are"
        return f"An audit checked {ASKED}: of {len(names)} behaviours {len(alarms)} {verb} suspicious."
    unknown = {record.name for record in behaviours if record.value is None}
    rest = f", {len(unknown)} for want of images" if unknown else ""
    return (
        f"An audit checked {ASKED}: of {len(names)} behaviours none raised an alarm{rest}, which is no proof."
    )
