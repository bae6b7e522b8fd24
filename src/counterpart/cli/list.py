"""List what has a name: attacks, mask rules, controls, maps, methods, data sets and networks, with their options.

counterpart list attacks; counterpart list masks. Names that installed packages add are listed as well.
"""

import argparse
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from ..catalogue import KINDS, SUITES, Entry, Option, find, known_names
from ..config import readable

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help=f"What to list: {', '.join(KINDS)}.")


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """List one kind."""
    kind = KINDS[arguments.kind]
    ours = [*kind.entries.values()]
    added = [
        find(arguments.kind, name) for name in known_names(arguments.kind) if _is_added(arguments.kind, name)
    ]
    for entry in [*ours, *added]:
        print("\n".join(_describe(entry)))
    if arguments.kind == "attacks":
        print("\nSuites, which are lists of these:")
        for name, rows in SUITES.items():
            print(_wrap(f"{name}: {', '.join(map(_show_row, rows)) or 'no attack'}", 2))
    if kind.open:
        print(f"\nYour own, as module:function: {kind.expects}")
    return 0


def _is_added(kind: str, name: str) -> bool:
    """Whether a name comes from another package."""
    return name not in KINDS[kind].suggestions


def _describe(entry: Entry[Any]) -> list[str]:
    lines = [f"{entry.key}", _wrap(_sentence(entry.sentence), 4)]
    facts = getattr(entry.facts, "norms", None)
    if facts is not None:
        lines.append(f"    norms: {', '.join(facts)}")
    return lines + [_wrap(_describe_option(option), 6) for option in entry.options]


def _describe_option(option: Option) -> str:
    default = "" if option.default is None else f" (default: {_show(option.default)})"
    choices = f" [{', '.join(option.choices)}]" if option.choices else ""
    return f"{option.name}{choices}: {option.sentence}{default}"


def _show_row(row: Mapping[str, object]) -> str:
    given = {"attack": "pgd", **row}
    options = " ".join(f"{name} {_show(value)}" for name, value in given.items() if name != "attack")
    return f"{given['attack']} {options}".strip()


def _show(value: object) -> str:
    shown = readable(value) if isinstance(value, float) else str(value)
    return shown.lower() if isinstance(value, bool) else shown


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text[0].upper()}{text[1:]}."


def _wrap(text: str, indent: int) -> str:
    space = " " * indent
    return textwrap.fill(text, 110, initial_indent=space, subsequent_indent=space + "  ")
