"""The claim that an evaluation is asked about: refused early where it cannot be judged, and kept as a record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..claims import PREFIX, read_claim, rule_on
from ..config import EvaluateSettings, readable
from ..errors import UserError
from ..evaluation.summaries import UNION
from ..records import WORST, Record

NOT_COUNTED = {"sampled", "draws", "votes"}
"""Details of evaluations whose intervals are none of counted images."""


def refuse_claim(wanted: EvaluateSettings, radii: Sequence[float] | None) -> None:
    """Refuse a claim at a radius that is not evaluated, before anything is attacked.

    Args:
        wanted: the settings of the evaluation.
        radii: its radii; None for a union of budgets.

    Raises:
        UserError: no accuracy would answer the claim.
    """
    if wanted.claim is None:
        return
    claim = read_claim(wanted.claim)
    if not wanted.attacks:
        raise UserError(f"--claim {str(claim)!r} is about what survives attacks: name some with --attacks.")
    if claim.eps is None:
        return
    if radii is None:
        share = f"{100 * claim.share:g} %"
        raise UserError(
            f"--claim {str(claim)!r}: a union has no one radius. Claim '{share}' of the union as a whole."
        )
    if not any(math.isclose(claim.eps, radius, rel_tol=1e-6) for radius in radii):
        raise UserError(
            f"--claim {str(claim)!r}: evaluated is at {', '.join(map(readable, radii))}. Ask for --eps "
            f"{readable(claim.eps)}."
        )


def with_claim(wanted: EvaluateSettings, records: Sequence[Record]) -> list[Record]:
    """The records of an evaluation, followed by that of its claim where there is one."""
    if wanted.claim is None:
        return list(records)
    claim = read_claim(wanted.claim)
    worst = [record for record in records if _is_worst(record.name)]
    judged = worst[-1]
    if claim.eps is not None:
        judged = next(r for r in worst if math.isclose(r.details["eps"], claim.eps, rel_tol=1e-6))
    assert judged.value is not None
    assert judged.interval is not None
    counted = not NOT_COUNTED & judged.details.keys()
    ruling = rule_on(claim, judged.value, judged.interval, counted)
    details: dict[str, Any] = {**judged.details, "claim": str(claim), "verdict": ruling.verdict}
    details |= {} if ruling.needed is None else {"needed": ruling.needed}
    details.pop("per_class", None)
    return [*records, replace(judged, name=f"{PREFIX}{claim}", details=details)]


def _is_worst(name: str) -> bool:
    return name in (f"{UNION}{WORST}", f"accuracy/{WORST}") or name.startswith(f"accuracy/{WORST} at ")


def claims_of(records: Sequence[Record]) -> list[Record]:
    """Those records that are of claims."""
    return [record for record in records if record.name.startswith(PREFIX)]


def summary_of(record: Record) -> Mapping[str, Any]:
    """What ``result.json`` says of a claim."""
    shown = {name: record.details[name] for name in ("claim", "verdict", "needed") if name in record.details}
    return {**shown, "value": record.value, "interval": record.interval, "n": record.n}
