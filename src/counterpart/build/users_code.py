"""A user's own code in a configuration: announced before it runs, and hashed where it decides results."""

from collections.abc import Sequence
from typing import Any

from ..catalogue import Entry, comes_from_outside, describe_source, find, load_users_object, source_hash
from ..config import Config, EvaluationAttack


def name_users_code(config: Config, attacks: Sequence[EvaluationAttack] = ()) -> list[str]:
    """A sentence for each piece of a user's own code that a run or an evaluation is about to use."""
    names = [("data", config.data.name), ("models", config.model.name)]
    if config.train.masked or config.evaluate.eps_low is not None:
        names.append(("masks", config.mask.rule))
    names += [("attacks", asked.attack) for asked in attacks]
    return [
        describe_source(name, find(kind, name).code)
        for kind, name in dict.fromkeys(names)
        if comes_from_outside(kind, name)
    ]


def hash_users_code(config: Config) -> dict[str, str]:
    """The hash of each source of a user's own that decides the result of an evaluation."""
    entries: list[Entry[Any]] = [asked.entry for asked in config.evaluate.attacks]
    if config.evaluate.eps_low is not None:
        entries.append(config.mask.entry)
    return {entry.key: source_hash(load_users_object(entry.code)) for entry in entries if not entry.inside}
