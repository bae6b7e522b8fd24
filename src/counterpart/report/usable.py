"""Whether the page can use a record that anybody may have written: the fields that it reads, and what each must be."""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..claims import read_claim
from ..numerals import read_fold
from ..parsing.limits import read_bytes, read_text
from ..records import WORST, Record

LARGEST = 1e15  # of counts and radii that are shown as whole numbers


def fault(record: Record) -> str | None:
    """What makes a record unfit for the page, as the end of a sentence; None where nothing does.

    Args:
        record: the record. Entries of its details that the page does not read may be anything.
    """
    if record.value is not None and not _is_number(record.value):
        return f"has the value {record.value}"
    if record.n is not None and not _is_count(record.n):
        return f"has n {record.n}"
    if record.interval is not None and not all(map(_is_number, record.interval)):
        return "has an interval that is not finite"
    if record.seconds is not None and not _is_number(record.seconds):
        return f"has {record.seconds} seconds"
    if record.name.startswith(("corruption/", "where/", "claim/")) and None in (
        record.value,
        record.interval,
    ):
        return "lacks its value or its interval"
    for name in _needed(record):
        if record.details.get(name) is None:
            return f"lacks {name!r}"
    for name, value in record.details.items():
        of_this_form = FORMS.get(name)
        if of_this_form is not None and value is not None and not of_this_form(value):
            return f"has {name!r} of another form than a number, text or table that the page can show"
    if record.name.startswith("accuracy/") and isinstance(record.details.get("eps"), list):
        return "has several radii, which an evaluation of one budget has not"
    several = record.name == UNION_WORST or isinstance(record.details.get("eps"), list)
    if several and not _has_radii(record.details):
        return "does not give a radius to each of its norms"
    return None


def sound_seed(value: object) -> int | None:
    """The seed that a configuration states; None where that is no whole number."""
    return value if type(value) is int and abs(value) < LARGEST else None


def sound_fold(value: object) -> str | None:
    """The fold that a configuration states, such as "1/5"; None where it is nothing of the kind."""
    if not isinstance(value, str):
        return None
    try:
        read_fold(value)
    except ValueError:
        return None
    return value


def read_standing(path: Path) -> dict[str, float] | None:
    """The share of each image's draws that stand, from the table of images; None where some were not tried.

    Raises:
        ValueError: it is no such table, or too large.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
        if any(row["first_fooled_by"] == UNTRIED for row in rows):
            return None
        standing = {row["index"]: float(row.get("share") or not row["first_fooled_by"]) for row in rows}
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is no table of images ({type(error).__name__}: {error!s:.100})") from None
    if not all(0 <= share <= 1 for share in standing.values()):
        raise ValueError("it is no table of images (a share is not within 0 and 1)")
    return standing


def read_png(path: Path) -> bytes:
    """The bytes of a PNG file.

    Raises:
        ValueError: it is none, or too large.
    """
    content = read_bytes(path, "TEXT")
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("it is no PNG file")
    return content


UNTRIED = "untried"  # what the table of images says of a survivor on whom the dear attacks were not tried
UNION_WORST = f"union/{WORST}"


def _needed(record: Record) -> tuple[str, ...]:
    """The details without which the page cannot show a record of this name."""
    if record.kind == "epoch":
        return ("epoch",)
    if record.kind == "artifact":
        return ("file",)
    if record.kind != "metric":
        return ()
    of = record.name.partition("/")[0]
    if record.name.startswith("corruption/mean of"):
        return (
            "corruptions_key",
            "severities",
            "published",
            "corruptions",
            "left_out",
            "data",
            "split",
            "source",
        )
    if record.name == "where/everything":
        return ("title", "region", "pixels", "clean", "where")
    if record.name.startswith("where/area "):
        return ("title", "where", "area")
    if of == "accuracy" and record.details.get("radii"):
        return ("eps",)
    return {
        "corruption": ("corruptions_key",),
        "where": ("title", "region", "pixels", "where"),
        "audit": ("numbers", "verdict"),
        "claim": ("claim", "verdict"),
        "union": ("norm", "eps"),
        "verified": ("marginal",),
    }.get(of, ())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < LARGEST


def _is_count(value: object) -> bool:
    return _is_number(value) and float(value) >= 0  # type: ignore[arg-type]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _list_of(of_this_form: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(of_this_form, value))


def _table_of(of_this_form: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(of_this_form, value.values()))


def _is_radius(value: object) -> bool:
    return _is_number(value) or _list_of(_is_number)(value)


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_count, value))


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_part(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_number(value.get("iou"))
        and _is_count(value.get("n"))
        and "interval" in value
        and (value["interval"] is None or _is_pair(value["interval"]))
    )


def _is_sample(value: object) -> bool:
    return (
        isinstance(value, dict)
        and (value.get("count") == "auto" or _is_count(value.get("count")))
        and _list_of(_is_text)(value.get("dear"))
        and bool(value["dear"])
    )


def _is_estimate(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_pair(value.get("of_these_images"))
        and all(_is_count(value.get(name)) for name in ("tried", "survivors"))
    )


def _is_claim(value: object) -> bool:
    try:
        read_claim(str(value))
    except ValueError:
        return False
    return True


def _has_radii(details: Mapping[str, Any]) -> bool:
    return isinstance(details["eps"], list) and len(str(details.get("norm")).split(",")) == len(
        details["eps"]
    )


FORMS: dict[str, Callable[[object], bool]] = {
    "eps": _is_radius,
    "radii": _list_of(_is_number),
    "shape": _is_shape,
    "severities": _list_of(_is_count),
    "corruptions": _list_of(_is_text),
    "left_out": _table_of(_is_text),
    "doubts": _table_of(_is_text),
    "numbers": _table_of(_is_number),
    "per_class": _table_of(_is_pair),
    "per_part": _table_of(_is_part),
    "sampled": _is_sample,
    "estimate": _is_estimate,
    "needed": _is_count,
    "claim": _is_claim,
    **dict.fromkeys(
        (
            "epoch", "loss", "accuracy", "validation_clean", "validation_robust", "mean_radius", "flat_maps", "eps_low",
            "trained_eps_low", "forwards", "backwards", "marginal", "share", "pixels", "clean", "draws", "votes", "eot",
        ),
        _is_number,
    ),
    **dict.fromkeys(
        (
            "data", "split", "norm", "method", "model", "weights", "evaluation", "fold", "phase", "corruptions_key",
            "source", "protocol", "area", "region", "control", "kind", "title", "where", "audit", "verdict", "file",
            "sha256", "caption", "engine", "precision", "labels", "fingerprint",
        ),
        _is_text,
    ),
}  # fmt: skip
