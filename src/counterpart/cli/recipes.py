"""List the built-in recipes, or show one with every setting."""

import argparse
import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from .. import recipes
from ..errors import UserError, nearest
from ..terminal import show

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="list|show", required=True)
    every = actions.add_parser("list", help="List the built-in recipes and what they are.")
    every.add_argument(
        "data", metavar="DATA", nargs="?", help="Only the recipes of this data set, such as cifar10."
    )
    show = actions.add_parser(
        "show",
        help="Print a recipe with every setting: counterpart recipes show cifar10/part > my.yaml makes a file to edit.",
    )
    show.add_argument("recipe", metavar="NAME", help="A built-in recipe, or a .yaml file.")


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """List or show."""
    if arguments.action == "show":
        show(*recipes.show(arguments.recipe).splitlines())
        return 0
    if arguments.data is None:
        _show_groups()
        return 0
    names = [name for name in recipes.names() if name.partition("/")[0] == arguments.data]
    if not names:
        known = {name.partition("/")[0] for name in recipes.names()}
        raise UserError(f"no recipes are for {arguments.data!r}. {nearest(arguments.data, known)}")
    width = max(len(name) for name in names)
    for name in names:
        show(f"{name:{width}}  {recipes.headline(name)}")
    return 0


def _show_groups() -> None:
    """A paragraph for each group of data sets that have the same recipes, and in it a line for each kind of them."""
    of_data: dict[str, list[str]] = {}
    for name in recipes.names():
        data, _, rest = name.partition("/")
        of_data.setdefault(data, []).append(rest)
    alike: dict[tuple[str, ...], list[str]] = {}
    for data, names in of_data.items():
        alike.setdefault(tuple(names), []).append(data)
    for group, sets in alike.items():
        show(", ".join(sets))
        kinds: dict[str, list[str]] = {}
        for name in group:
            kinds.setdefault(_kind(name, group), []).append(name)
        for names in kinds.values():
            text = ", ".join(names)
            show(
                *textwrap.wrap(
                    text, 110, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
                )
            )
    show("A recipe is DATA/NAME, such as cifar10/part. What each one is: counterpart recipes list cifar10")


def _kind(name: str, group: Collection[str]) -> str:
    """The shortest name of the group that this one goes on from: at of at-mma."""
    pieces = name.split("-")
    shorter = ("-".join(pieces[:count]) for count in range(1, len(pieces) + 1))
    return next(start for start in shorter if start in group)
