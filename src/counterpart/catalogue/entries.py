"""The form of a row of the catalogue: a name, the place of its code, its options, and facts about it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .user_code import load_users_object

PACKAGE = __package__.partition(".")[0]


@dataclass(frozen=True)
class Option:
    """An option of an entry.

    Attributes:
        name: the parameter of the entry's code that it sets.
        type: the type of its values: int, float, bool or str. A float may be written as a fraction, such as
            8/255.
        default: the value where nothing is given, or None where the code decides.
        sentence: the meaning of the option, for someone who has not read the paper.
        low: the smallest value allowed.
        high: the largest value allowed.
        above: values must be larger than this.
        below: values must be smaller than this.
        choices: the texts that are allowed. It is empty where any value of the type is allowed.
        in_name: the form in which an attack's name shows the value, such as "-{}" for "PGD-20". Where it is
            empty, the name does not show the value.
        unless: the value that a name leaves out, which is the option's default where nothing is given here.
            It is part of stored names, so it must never change.
        setting: for a mask rule, the name of the setting ``mask.<setting>`` that gives the value, where it
            differs from the name of the option.
    """

    name: str
    type: type
    default: object
    sentence: str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    in_name: str = ""
    unless: object = ...
    setting: str = ""

    @property
    def silent_value(self) -> object:
        """The value that a name does not mention."""
        return self.default if self.unless is ... else self.unless


FactsT = TypeVar("FactsT")


def load_code(code: str) -> Any:
    """The object that ``module:name`` of this package names, imported now."""
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)


@dataclass(frozen=True)
class Entry(Generic[FactsT]):
    """Something with a name that a user may write.

    Attributes:
        key: the name that users write and ledgers keep. It never changes.
        title: the name that tables show.
        code: the place of its code, as ``module:name`` inside of this package, or anywhere for an entry of
            another package.
        sentence: what it is, in one plain sentence.
        facts: the facts about it that other parts of the program read.
        options: the options that can be set.
        inside: whether ``code`` is relative to this package.
    """

    key: str
    title: str
    code: str
    sentence: str
    facts: FactsT
    options: tuple[Option, ...] = ()
    inside: bool = True

    def load(self) -> Any:
        """The code of the entry, imported now."""
        return load_code(self.code) if self.inside else load_users_object(self.code)

    @property
    def defaults(self) -> dict[str, object]:
        """The default of each option, by the name of the option."""
        return {option.name: option.default for option in self.options}

    def named(self, values: Mapping[str, Any], show: Any = str) -> str:
        """The title with the values of the options, such as "PGD-50x5 margin"."""
        words = [
            option.in_name.format(show(values[option.name]))
            for option in self.options
            if option.in_name and option.name in values and values[option.name] != option.silent_value
        ]
        return self.title + "".join(words)
