"""What a row of the catalogue is: a name, where its code lies, its options, and facts about it."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .user_code import load_users_object

PACKAGE = __package__.partition(".")[0]


@dataclass(frozen=True)
class Option:
    """One option of an entry.

    Attributes:
        name: the parameter of the entry's code that it sets.
        type: int, float, bool or str; a float may be written as a fraction, such as 8/255.
        default: what the code takes where nothing is given; None where the code decides.
        sentence: what it means, for someone who has not read the paper.
        low: the smallest value allowed.
        high: the largest value allowed.
        above: values must be larger than this.
        below: values must be smaller than this.
        choices: the texts allowed, if it is one of some.
        in_name: how an attack's name shows the value, such as "-{}" for "PGD-20". Empty: it does not.
        unless: the value that a name leaves out; by default the option's default. Part of stored names: never change.
        setting: for a mask rule: the setting ``mask.<setting>`` that gives it, where that has another name.
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
    """What ``module:name`` of this package is, imported now."""
    module, _, name = code.partition(":")
    return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)


@dataclass(frozen=True)
class Entry(Generic[FactsT]):
    """Something with a name that a user may write.

    Attributes:
        key: what users write and ledgers keep. It never changes.
        title: what tables show.
        code: where it is, ``module:name`` inside of the package, or anywhere for an entry of another package.
        sentence: what it is, in one plain sentence.
        facts: what others must know of it.
        options: what can be set.
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
        """Its code, imported now."""
        return load_code(self.code) if self.inside else load_users_object(self.code)

    @property
    def defaults(self) -> dict[str, object]:
        """Its options with their defaults."""
        return {option.name: option.default for option in self.options}

    def option(self, name: str) -> Option:
        """The option of a name.

        Raises:
            KeyError: it has none of that name.
        """
        return {option.name: option for option in self.options}[name]

    def named(self, values: Mapping[str, Any], show: Any = str) -> str:
        """Its title with what its options say: "PGD-50x5 margin"."""
        words = [
            option.in_name.format(show(values[option.name]))
            for option in self.options
            if option.in_name and option.name in values and values[option.name] != option.silent_value
        ]
        return self.title + "".join(words)
