"""Print a script that lets a shell complete the commands, options and names of Counterpart when you press Tab.

It is made of what this version knows: print it anew after an upgrade.
"""

import argparse
from collections.abc import Collection, Mapping
from typing import Any

from ..terminal import show
from .completed_words import completed_commands
from .shell_scripts import SCRIPTS

SETTINGS: Collection[str] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="The shell.")


def run(arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
    """Print the script."""
    script = SCRIPTS[arguments.shell](completed_commands(arguments.commands))
    show(*script.rstrip("\n").split("\n"))
    return 0
