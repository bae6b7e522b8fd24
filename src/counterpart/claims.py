"""What an evaluation says of a claim such as "60 % at 8/255": refuted, consistent or undecided."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .numerals import readable
from .records import Record
from .statistics import BOTH, FEWEST_TRAININGS, NORMAL_QUANTILE, over_seeds

FORM = "a share and the radius that it is claimed at, such as '60 % at 8/255'"
REFUTED, CONSISTENT, UNDECIDED = "refuted", "consistent", "undecided"
PREFIX = "claim/"
"""The names of the records of claims begin with this."""


@dataclass(frozen=True)
class Claim:
    """A claim that a share of the images survives every attack within a radius.

    Attributes:
        share: the claimed share, in (0, 1].
        eps: the radius that it is claimed at; None means the largest radius, or the union, that is evaluated.
    """

    share: float
    eps: float | None = None

    def __str__(self) -> str:
        at = "" if self.eps is None else f" at {readable(self.eps)}"
        return f"{100 * self.share:.6g} %{at}"


def read_claim(text: str) -> Claim:
    """Read "60 % at 8/255" or "60 %".

    Raises:
        ValueError: the text has another form, or claims less than something or more than everything.
    """
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"\s*{number}\s*%(?:\s*(?:at|@)\s*{number}(?:\s*/\s*{number})?)?\s*", text)
    if match is None:
        raise ValueError(f"a claim is {FORM}; got {text!r:.80}")
    share, eps, divisor = (None if digits is None else float(digits) for digits in match.groups())
    if share is None or not 0 < share <= 100:
        raise ValueError(f"a claim is above 0 % and at most 100 %; got {text!r:.80}")
    if eps is not None and (eps <= 0 or divisor == 0):
        raise ValueError(f"the radius of a claim is above 0; got {text!r:.80}")
    return Claim(share / 100, eps if eps is None or divisor is None else eps / divisor)


@dataclass(frozen=True)
class Ruling:
    """What an evaluation says of a claim.

    Attributes:
        verdict: ``REFUTED``, ``CONSISTENT`` or ``UNDECIDED``.
        needed: how many images would decide the claim if the share stayed as it is; None where it is decided, where
            no number of images would, or where the interval is no Wilson interval of counted images.
    """

    verdict: str
    needed: int | None = None


def rule_on(claim: Claim, value: float, interval: tuple[float, float], counted: bool = True) -> Ruling:
    """Whether the worst case refutes a claim.

    The claim is refuted where the interval's upper end lies below it, and consistent where the lower end reaches it: an
    attack never confirms, for a stronger one may find more. Else it is undecided. Wilson's interval of a share p of n
    images leaves out a share c exactly where n (p - c)² > z² c (1 - c), which gives the number that would decide.

    Args:
        claim: the claim.
        value: the share that survived, in [0, 1].
        interval: its 95 % interval.
        counted: whether the interval is Wilson's, of a count of images.
    """
    low, high = interval
    if high < claim.share:
        return Ruling(REFUTED)
    if low >= claim.share:
        return Ruling(CONSISTENT)
    distance = (value - claim.share) ** 2
    spread = NORMAL_QUANTILE**2 * claim.share * (1 - claim.share)
    if not counted or distance == 0 or spread == 0:
        return Ruling(UNDECIDED)
    return Ruling(UNDECIDED, math.floor(spread / distance) + 1)


def claim_in_words(record: Record) -> str:
    """A sentence on a claim, from its record.

    Its details hold the "claim" and the "verdict", and "needed" where a number of images would decide.
    """
    details, n = record.details, record.n or 0
    low, high = (f"{100 * end:.1f} %" for end in record.interval or (0.0, 1.0))
    verdict = details["verdict"]
    head = f"Claim of {details['claim']}: {verdict}"
    if verdict == REFUTED:
        return f"{head}. At most {high} survive these attacks (upper end of the 95 % interval, n = {n:,})."
    if verdict == CONSISTENT:
        doubts = " And doubts stand." if details.get("doubts") else ""
        return (
            f"{head}, not confirmed: at least {low} survive these attacks (lower end of the 95 % interval, "
            f"n = {n:,}), and a stronger attack may find more.{doubts}"
        )
    needed = details.get("needed")
    more = (
        f" About {needed:,.0f} images would decide it if the share stays at {100 * (record.value or 0):.1f} %."
        if needed
        else ""
    )
    return f"{head} at n = {n:,}: the 95 % interval reaches from {low} to {high}.{more}"


def claim_over_seeds(records: Sequence[Record]) -> str:
    """A sentence on a claim that several trainings of one method were asked about.

    A claim is about a model, and each training made another: so each has its ruling. From ``FEWEST_TRAININGS`` on their
    mean has one as well, by its interval over images and trainings. Fewer say too little of further trainings.

    Args:
        records: the record of the claim, one for each training, with its seed.

    Raises:
        ValueError: the records do not say what was claimed.
    """
    words = str(records[0].details["claim"])
    claim = read_claim(words)
    each = "; ".join(f"seed {record.seed} {record.details['verdict']}" for record in records)
    values = [record.value for record in records if record.value is not None]
    intervals = [record.interval for record in records if record.interval is not None]
    mean, _, interval, over = over_seeds(values, intervals)
    if over != BOTH or interval is None:
        return (
            f"Claim of {words}, of each training by itself: {each}. Their mean is {100 * mean:.1f} %; a ruling on it "
            f"takes {FEWEST_TRAININGS} trainings."
        )
    low, high = (f"{100 * end:.1f} %" for end in interval)
    verdict = rule_on(claim, mean, interval, counted=False).verdict
    return (
        f"Claim of {words}, on average over {len(records)} trainings: {verdict}. Their mean is {100 * mean:.1f} % "
        f"(95 % interval over {BOTH} {low} to {high}). Of each by itself: {each}."
    )
