"""A user's own code in a configuration: announced before it runs, and hashed where it decides results."""

from collections.abc import Sequence
from typing import Any

from ..catalogue import Entry, describe_source, is_users_code, load_users_object, source_hash
from ..config import Config, EvaluationAttack


def name_users_code(config: Config, attacks: Sequence[EvaluationAttack] = ()) -> list[str]:
    """A sentence for each piece of a user's own code that a run or an evaluation is about to use."""
    masked = config.train.masked or config.evaluate.eps_low is not None
    names = [config.data.name, *([config.mask.rule] if masked else []), *(asked.attack for asked in attacks)]
    names += [] if attacks else [config.model.name]
    return [describe_source(name) for name in dict.fromkeys(names) if is_users_code(name)]


def hash_users_code(config: Config) -> dict[str, str]:
    """The hash of each source of a user's own that decides the result of an evaluation."""
    entries: list[Entry[Any]] = [asked.entry for asked in config.evaluate.attacks]
    if config.evaluate.eps_low is not None:
        entries.append(config.mask.entry)
    return {entry.key: source_hash(load_users_object(entry.code)) for entry in entries if not entry.inside}
