"""From the name of a published model to its row: which of the models of that name a user means."""

from collections.abc import Mapping
from typing import Any

from ..catalogue import PROTOCOLS, PublishedModel, published_models, rows_named
from ..catalogue.models import MODELS, NAMES
from ..errors import UserError, nearest
from ..models.published import refuse_missing

NORMS = {"linf": "Linf", "l2": "L2"}


def row_of(name: str, settings: Mapping[str, Any]) -> PublishedModel | None:
    """The published model of a name, or None where no published model is called so.

    Several leaderboards may have a model of this name. The protocol decides, or the data set and the norm.

    Args:
        name: the first word of NAME@FILE.
        settings: nested settings of the command.

    Raises:
        UserError: the network of this model is not here, or several networks have this name and nothing decides.
    """
    rows = rows_named(name)
    if not rows:
        return None
    evaluate = settings.get("evaluate") or {}
    wished: dict[str, Any] = {
        "data": (settings.get("data") or {}).get("name"),
        "threat": NORMS.get(str(evaluate.get("norm"))),
    }
    if evaluate.get("protocol") is not None:
        facts = PROTOCOLS[evaluate["protocol"]].facts
        wished = {"data": facts.data, "threat": facts.threat}
    for field, value in wished.items():
        rows = [row for row in rows if getattr(row, field) == value] or rows
    if all(row.missing for row in rows):
        refuse_missing(rows)
    networks = {(row.network, row.normalisation, row.preparation) for row in rows if row.network}
    if len(networks) > 1:
        choices = " or ".join(row.protocol for row in rows)
        raise UserError(f"several published models are called {name}: say which by --protocol {choices}.")
    return next(row for row in rows if row.network)


def check_architecture(name: str) -> None:
    """Refuse the first word of NAME@FILE where neither a network nor a published model is called so.

    Raises:
        UserError: it names the nearest of both.
    """
    families = [entry.facts.family for entry in MODELS.values() if entry.facts.family]
    if name in MODELS or any(name.startswith(family) for family in families):
        return
    known = [*NAMES, *dict.fromkeys(row.name for row in published_models())]
    close = nearest(name, known)
    hint = close if close.startswith("Did") else "counterpart list models, and with --published, lists both."
    raise UserError(f"no network and no published model is called {name!r}. {hint}")
