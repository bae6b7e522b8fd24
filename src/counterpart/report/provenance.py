"""Where a run comes from, as names and values: command, hardware, commit, data, and what was verified."""

from typing import Any

from ..records import Record
from .runs import Run
from .setting import radius_text


def provenance(run: Run) -> list[tuple[str, str]]:
    """Names and values that say where a run comes from.

    A value that training and evaluation share stands once; where they differ, both stand.
    """
    works = {"training": run.epochs[-1]} if run.epochs else {}
    works |= {"evaluation": run.shown.first} if run.shown else {}
    origins = {work: _origin(record) for work, record in works.items()}
    rows = [("folder", str(run.folder.path)), ("seed", text_of(run.seed))]
    for name in dict.fromkeys(name for origin in origins.values() for name in origin):
        values = {work: origin[name] for work, origin in origins.items()}
        same = len(set(values.values())) == 1
        rows.append(
            (name, values.popitem()[1] if same else "; ".join(f"{w}: {v}" for w, v in values.items()))
        )
    rows += _masks(run)
    if run.shown:
        details = run.shown.details
        rows += [
            ("data fingerprint", text_of(details.get("fingerprint"))),
            ("weights", text_of(details.get("weights"))),
        ]
        passes = [f"{details[k]:,} {k}" for k in ("forwards", "backwards") if details.get(k) is not None]
        rows.append(("passes per image, summed", ", ".join(passes) or "—"))
    if verified := run.verified:
        holds, claims = round((verified.value or 0) * (verified.n or 0)), verified.n or 0
        rows.append(
            ("verified", f"{holds:,} of {claims:,} claims hold, {verified.details['marginal']:,} marginally")
        )
    return rows


def _origin(record: Record) -> dict[str, str]:
    """A mapping from each name to its value that says how and where a record was made."""
    p = record.provenance
    return {
        "command": text_of(p.get("command")),
        "commit": text_of(p.get("commit")),
        "versions": f"torch {text_of(p.get('torch'))}, Python {text_of(p.get('python'))}",
        "hardware": text_of(p.get("hardware")),
        "finished": text_of(p.get("time")),
        "config hash": text_of(record.config),
    }


def _masks(run: Run) -> list[tuple[str, str]]:
    """Names and values of the masked budgets in the training log; empty where training drew none."""
    radii = [e.details["mean_radius"] for e in run.epochs if e.details.get("mean_radius") is not None]
    if not radii:
        return []
    flat = sum(e.details.get("flat_maps") or 0 for e in run.epochs)
    lows = [radius_text(e.details["eps_low"]) for e in run.epochs if "eps_low" in e.details]
    judged = run.shown.details.get("trained_eps_low") if run.shown else None
    return [
        ("mean radius, last epoch", f"{255 * radii[-1]:.3f}/255"),
        ("flat maps in training", f"{flat:,}"),
        *([("eps_low by epoch", " ".join(lows))] if lows else []),
        *([("eps_low of the judged weights", radius_text(judged))] if judged is not None else []),
    ]


def text_of(value: Any) -> str:
    """A value as text; a dash for None."""
    return "—" if value is None else str(value)
