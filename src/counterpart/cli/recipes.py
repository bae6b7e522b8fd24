"""List the built-in recipes, or show one with every setting."""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from .. import recipes

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest="action", metavar="list|show", required=True)
    actions.add_parser("list", help="every built-in recipe and what it is")
    show = actions.add_parser(
        "show", help="one recipe with every setting, to edit: counterpart recipes show cifar10/part > my.yaml"
    )
    show.add_argument("recipe", metavar="NAME", help="a built-in name, or a .yaml file")


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """List or show."""
    if arguments.action == "show":
        print(recipes.show(arguments.recipe), end="")
        return 0
    width = max(map(len, recipes.names()))
    for name in recipes.names():
        print(f"{name:{width}}  {recipes.headline(name)}")
    return 0
