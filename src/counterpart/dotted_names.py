"""Nested settings and their dotted names: {"train": {"epochs": 80}} and "train.epochs"."""

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import UserError


def nest(changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Nested settings from dotted names: {"train.epochs": 5} gives {"train": {"epochs": 5}}."""
    nested: dict[str, Any] = {}
    for key, value in (changes or {}).items():
        *heads, leaf = key.split(".")
        target = nested
        for head in heads:
            target = target.setdefault(head, {})
            if not isinstance(target, dict):
                raise UserError(f"changes: {key} lies within {head}, which was given a value.")
        if isinstance(value, Mapping) and isinstance(target.get(leaf), dict):
            target[leaf] = {**target[leaf], **value}
        else:
            target[leaf] = dict(value) if isinstance(value, Mapping) else value
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one flat mapping with dotted names, such as {"train.epochs": 80}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def settings_in(nested: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The dotted name and the value of each setting of a section; a mapping that is a value stays one."""
    for section, values in nested.items():
        if isinstance(values, Mapping):
            for leaf, value in values.items():
                yield f"{section}.{leaf}", value
