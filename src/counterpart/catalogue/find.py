"""The search from a name to its entry.

The entry is one of this package, one that an installed package adds, or a user's own ``module:function``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

from ..errors import UserError, nearest
from .attacks import ATTACKS, SUITES, AttackFacts
from .data import DATA_SETS, DataFacts
from .entries import Entry, FactsT
from .masks import CONTROLS, MAPS, MASK_RULES, MaskFacts
from .methods import METHODS
from .models import MODELS, NAMES, ModelFacts
from .protocols import MISSING_PROTOCOLS, PROTOCOLS

OBJECT = "object "
"""The beginning of the names of objects of a Python program, such as "object package.Class"."""


@dataclass(frozen=True)
class Kind:
    """A kind of thing that has names.

    Attributes:
        what: the word for a thing of this kind in a sentence.
        entries: the entries of this package.
        suggestions: the names that a hint may suggest.
        facts: the facts about a thing that a package or a user adds, which may say otherwise by attributes of
            the same names. With None, nobody can add a thing of this kind.
        expects: the arguments and the result of a user's own function of this kind, in words.
    """

    what: str
    entries: Mapping[str, Entry[Any]]
    suggestions: tuple[str, ...]
    facts: Any = None
    expects: str = ""

    @property
    def open(self) -> bool:
        """Whether packages and users can add to it."""
        return self.facts is not None


KINDS: dict[str, Kind] = {
    "attacks": Kind(
        "attack", ATTACKS, (*SUITES, *ATTACKS), AttackFacts(),
        "(model, images, labels, *, budget, keys, **options) -> the perturbed images, or Attacked",
    ),
    "masks": Kind(
        "mask rule", MASK_RULES, (*MASK_RULES,), MaskFacts(), "(probe, batch, keys, **options) -> Mask"
    ),
    "controls": Kind("control", CONTROLS, (*CONTROLS,)),
    "maps": Kind("map", MAPS, (*MAPS,)),
    "methods": Kind("method", METHODS, (*METHODS,)),
    "data": Kind("data set", DATA_SETS, (*DATA_SETS,), DataFacts(), (
            "(root, **options) -> Splits, a torch Dataset, (images, labels), or a mapping of these by split"
        )),
    "models": Kind(
        "network", MODELS, NAMES, ModelFacts(), "(num_classes, in_channels, image_size, **options) -> torch.nn.Module"
    ),
    "protocols": Kind("protocol", PROTOCOLS, (*PROTOCOLS,)),
}  # fmt: skip


def find(kind: str, name: str) -> Entry[Any]:
    """The entry that has this name.

    Raises:
        UserError: nothing of this kind has that name; the message gives the nearest name that exists.
    """
    known = KINDS[kind]
    if name in known.entries:
        return known.entries[name]
    if kind == "protocols" and name in MISSING_PROTOCOLS:
        raise UserError(f"protocol {name} is not here: {MISSING_PROTOCOLS[name]}.")
    if known.open and name.startswith(OBJECT):
        return Entry(name, name, "catalogue.find:refuse_object", "an object of a Python program", known.facts)
    if known.open and is_users_code(name):
        return Entry(name, name, name, "your own code", known.facts, inside=False)
    if known.open and name in (added := _added(kind)):
        point = added[name]
        return Entry(name, name, point.value, f"of the package {_package(point)}", known.facts, inside=False)
    or_users = f" Or name your own: module:function, called as {known.expects}." if known.open else ""
    raise UserError(f"no {known.what} is called {name!r}. {nearest(name, known_names(kind))}{or_users}")


def refuse_object(*arguments: object, **options: object) -> NoReturn:
    """Refuse a command that asks for an object that only a Python program had.

    Raises:
        UserError: always.
    """
    raise UserError(
        "this model or these images were an object of a Python program, which no command can make again. Call the same "
        "function in Python (what it returns has verify), or name the code that makes them, as module:function."
    )


def known_names(kind: str) -> list[str]:
    """Every name of a kind, including those that installed packages add."""
    known = KINDS[kind]
    return [*dict.fromkeys([*known.suggestions, *(_added(kind) if known.open else ())])]


def comes_from_outside(kind: str, name: str) -> bool:
    """Whether a name stands for code of a user's own or of another package."""
    known = KINDS[kind]
    return name not in known.entries and (is_users_code(name) or name in _added(kind))


def stated_facts(facts: FactsT, thing: object) -> FactsT:
    """The facts about a user's function or class, which it states by attributes of the same names."""
    stated = {fact.name: getattr(thing, fact.name) for fact in fields(facts) if hasattr(thing, fact.name)}  # type: ignore[arg-type]
    return replace(facts, **stated)  # type: ignore[type-var]


def is_users_code(name: str) -> bool:
    """Whether a name has the form ``module:function``."""
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), function])


def sentences(kind: str) -> str:
    """The sentences that say what each entry of a kind is, for the help of a setting."""
    return "; ".join(f"{entry.key}: {entry.sentence}" for entry in KINDS[kind].entries.values())


@cache
def _added(kind: str) -> dict[str, EntryPoint]:
    """The entry points of the group ``counterpart.<kind>``, by which installed packages add to a kind."""
    return {point.name: point for point in entry_points(group=f"counterpart.{kind}")}


def _package(point: EntryPoint) -> str:
    return point.value if point.dist is None else point.dist.name
