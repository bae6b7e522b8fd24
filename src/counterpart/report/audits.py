"""Audits on the page: the behaviours of each as a table, and beside the verdict what they came to."""

from typing import NamedTuple

from ..records import CLEAN, WORST, Record
from ..statistics import wilson
from .tables import TableRow

ASKED = "whether these attacks can be trusted"


WITHIN_THE_BUDGET = {
    "FGSM": "FGSM",
    "PGD": "PGD",
    "Square": "Square",
    "PGD and APGD": "PGD with APGD",
    "random search": "random search",
    "PGD, straight-through": "straight-through PGD",
}
"""Numbers that are shares of right answers which an attack within the judged radius fools -> the attack in words."""
WITHOUT_NUMBERS = {"the model raises no doubts": "clean images"}
"""Behaviours that are measured without numbers, and on what."""


class Broken(NamedTuple):
    """An attack of an audit that fools more than the attacks of the evaluation.

    Attributes:
        attack: its name.
        share: the share of the right answers that it fools, in [0, 1].
        n: the number of right answers that it was tried on.
        before: the share of its right answers that the evaluation's attacks fool.
    """

    attack: str
    share: float
    n: int
    before: float

    @property
    def fooled(self) -> int:
        """How many of the right answers it fools."""
        return round(self.share * self.n)


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
    name = record.name.removeprefix("audit/")
    numbers = "; ".join(f"{of} {value:.1%}" for of, value in record.details["numbers"].items())
    honest = None if record.value is None else bool(record.value)
    measured = numbers or WITHOUT_NUMBERS.get(name, "not run")
    return ShownBehaviour(name, measured, record.n, honest, str(record.details["verdict"]))


def behaviours_of(row: TableRow) -> list[Record]:
    """The behaviours that were audited of a row's runs, in the norm that the row was judged in."""
    norm = row.setting.norm
    return [record for run in row.runs for record in run.audit if record.details.get("norm", norm) == norm]


def alarms_of(row: TableRow) -> list[str]:
    """The names of the behaviours of a row that are suspicious, each once."""
    suspicious = [record for record in behaviours_of(row) if record.value == 0]
    return list(dict.fromkeys(record.name.removeprefix("audit/") for record in suspicious))


def broken_by(row: TableRow) -> Broken | None:
    """The attack of an audit within the row's radius that fools most, if it beats the evaluation's attacks.

    It beats them where the lower end of its 95 % interval lies above what the evaluation's attacks fool at the upper
    end of theirs: luck explains no such gap.
    """
    clean, worst = row.accuracy(CLEAN), row.accuracy(WORST)
    if clean is None or worst is None or not clean.value:
        return None
    before = 1 - worst.value / clean.value
    least = worst.value if worst.low is None else worst.low
    at_most = 1 - least / clean.value
    beating = []
    for record in behaviours_of(row):
        if record.value != 0 or not record.n or record.details.get("eps") != row.setting.eps:
            continue
        for attack, share in record.details["numbers"].items():
            if attack in WITHIN_THE_BUDGET and 0 <= share <= 1:
                beating.append(Broken(WITHIN_THE_BUDGET[attack], share, int(record.n), before))
    strongest = max(beating, key=lambda broken: broken.share, default=None)
    if strongest is None or wilson(strongest.fooled, strongest.n)[0] <= at_most:
        return None
    return strongest


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
