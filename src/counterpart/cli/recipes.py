"""List the built-in recipes, or show one with every setting."""

import argparse
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
    names = [name for name in recipes.names() if arguments.data in (None, name.partition("/")[0])]
    if not names:
        known = {name.partition("/")[0] for name in recipes.names()}
        raise UserError(f"no recipes are for {arguments.data!r}. {nearest(arguments.data, known)}")
    width = max(len(name) for name in names)
    for name in names:
        show(f"{name:{width}}  {recipes.headline(name)}")
    return 0
