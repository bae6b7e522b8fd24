"""What a shell may complete on the command line: commands, their options, and the names that each takes."""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic.fields import FieldInfo

from ..catalogue import KINDS
from ..config import settings
from ..config.values import OfKind
from ..recipes import names
from .command import Command
from .settings import choices_of


@dataclass(frozen=True)
class CompletedOption:
    """An option.

    Attributes:
        names: such as ("--eps", "--evaluate.eps").
        help: what it means, in a sentence.
        values: the names that it takes; without any a value is a file or text of one's own.
        alone: whether it takes no value.
    """

    names: Sequence[str]
    help: str
    values: Sequence[str] = ()
    alone: bool = False


@dataclass(frozen=True)
class CompletedCommand:
    """A command.

    Attributes:
        name: its name.
        help: what it is for, in a sentence.
        words: the names that it takes; files besides.
        options: its options.
    """

    name: str
    help: str
    words: Sequence[str]
    options: Sequence[CompletedOption]


def completed_commands(commands: Mapping[str, Command]) -> list[CompletedCommand]:
    """What is known of every command."""
    known = []
    for name, command in commands.items():
        parser = argparse.ArgumentParser(add_help=False)
        command.configure(parser)
        words, options = _of_parser(parser)
        options += _of_settings(command.SETTINGS, getattr(command, "SECTIONS", ()))
        options += [CompletedOption(["--help"], "Show what there is.", alone=True)]
        known.append(CompletedCommand(name, _sentence(command.__doc__ or ""), words, options))
    return known


def _experiments() -> list[str]:
    from ..papers import EXPERIMENTS  # takes long to import

    return list(EXPERIMENTS)


# The names that an argument takes which is called so.
_NAMES: Mapping[str, Callable[[], list[str]]] = {"recipe": names, "experiment": _experiments}


def _of_parser(parser: argparse.ArgumentParser) -> tuple[list[str], list[CompletedOption]]:
    """The names and the options that a command declares."""
    words: list[str] = []
    options = []
    for action in parser._actions:
        values = [str(choice) for choice in action.choices or ()]
        if action.option_strings:
            help_text = _sentence(action.help or "")
            options.append(CompletedOption(action.option_strings, help_text, values, action.nargs == 0))
            continue
        words += values
        words += _NAMES[action.dest]() if action.dest in _NAMES else []
        if isinstance(action, argparse._SubParsersAction):  # actions that have arguments of their own
            for nested in action.choices.values():
                words += _of_parser(nested)[0]
    return words, options


def _of_settings(accepted: Collection[str], sections: Sequence[str]) -> list[CompletedOption]:
    """The settings of a command, by their short names as well."""
    options = []
    for key, info in settings():
        if key not in accepted:
            continue
        called = [f"--{key}"]
        section, _, leaf = key.rpartition(".")
        homes = [name for name in sections if f"{name}.{leaf}" in accepted]
        if homes and homes[0] == section:
            called.insert(0, f"--{leaf}")
        dashed = [name.replace("_", "-") for name in called]
        options.append(CompletedOption(dashed, _sentence(info.description or ""), _values_of(info)))
    return options


def _values_of(info: FieldInfo) -> list[str]:
    """The names that a setting takes."""
    if info.annotation is bool:
        return ["true", "false"]
    kinds = [mark.kind for mark in info.metadata if isinstance(mark, OfKind)]
    if kinds:
        return list(KINDS[kinds[0]].entries)
    return [str(choice) for choice in choices_of(info.annotation)]


def _sentence(text: str) -> str:
    """The first sentence of a text, in one line."""
    line = " ".join(text.split())
    end = line.find(". ")
    return line if end < 0 else line[: end + 1]
