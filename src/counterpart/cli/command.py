"""What a command is."""

import argparse
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Command(Protocol):
    """A module of this package. The first sentence of its docstring is its help."""

    __doc__: str | None
    SETTINGS: Collection[str]
    """Dotted names of the settings that have an effect on it."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, arguments: argparse.Namespace, settings: Mapping[str, Any]) -> int:
        """Do what the command says, and return the exit code."""
        ...
