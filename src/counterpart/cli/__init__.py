"""The command line: one thin file per command. Torch is imported by the command that needs it, not before."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn

from .. import __version__, silence
from ..errors import UserError, nearest
from ..sentences import answer, finish_output
from ..terminal import show, show_warnings
from . import (
    audit,
    completion,
    corruptions,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    models,
    papers,
    predict,
    recipes,
    report,
    runs,
    share,
    sweep,
    train,
    verify,
    where,
)
from . import list as list_
from .command import Command
from .settings import describe, from_arguments, unknown

DEBUG = "--debug"
# Commands that write records of a run.
TRACKED = ("train", "sweep", "evaluate", "corruptions", "where", "audit")


COMMANDS: dict[str, Command] = {
    "train": train,
    "sweep": sweep,
    "evaluate": evaluate,
    "verify": verify,
    "corruptions": corruptions,
    "where": where,
    "audit": audit,
    "predict": predict,
    "explain": explain,
    "export": export,
    "share": share,
    "report": report,
    "runs": runs,
    "papers": papers,
    "recipes": recipes,
    "data": data,
    "models": models,
    "list": list_,
    "doctor": doctor,
    "completion": completion,
    "demo": demo,
}


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, as every other error for the user does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. See: {self.prog} --help")


def main(words: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; ``sentences`` says which codes there are."""
    given = sys.argv[1:] if words is None else words
    debug, words = DEBUG in given, [word for word in given if word != DEBUG]
    show_warnings()
    try:
        try:
            code = _run(words)
        finally:
            finish_output()
    except SystemExit:  # of --help
        raise
    except BaseException as error:
        return answer(error, words, debug)
    return code


def _run(words: Sequence[str]) -> int:
    parser = _parser(words[0] if words else "")
    if not words:
        parser.print_help()
        return 2
    _refuse_homes_of_nobody(words)
    name = words[0]
    if not name.startswith("-") and name not in COMMANDS:
        raise UserError(f"unknown command {name!r}. {nearest(name, COMMANDS)}")
    accepted = COMMANDS[name].SETTINGS if name in COMMANDS else ()
    sections = getattr(COMMANDS.get(name), "SECTIONS", ())
    settings, others = from_arguments(words, accepted, sections) if accepted else ({}, words)
    parsed, rest = parser.parse_known_args(others)
    if rest and rest[0].startswith("--") and accepted:
        raise unknown(rest[0], accepted, sections)
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}. See: counterpart {parsed.command} --help")
    with _never_silent(parsed.command), _tracked(getattr(parsed, "track", [])):
        return COMMANDS[parsed.command].run(parsed, settings)


def _tracked(names: Sequence[str]) -> AbstractContextManager[None]:
    """Let trackers hear the records of the main process."""
    if not names or not _is_main():
        return nullcontext()
    from ..jobs.tracking import tracked_by

    return tracked_by(names)


def _is_main() -> bool:
    """Whether this is the main process of those that torchrun started; asked before torch is imported."""
    return os.environ.get("RANK", "0") == "0"


def _never_silent(name: str) -> AbstractContextManager[None]:
    """Let the main process of a command say that it is at work, where nothing else says it."""
    if not _is_main():
        return nullcontext()
    began = time.monotonic()

    def speak() -> None:
        minutes = (time.monotonic() - began) / 60
        show(f"counterpart {name}: at work for {minutes:.1f} minutes.", error=True)

    return silence.broken_by(speak)


def _refuse_homes_of_nobody(words: Sequence[str]) -> None:
    """Refuse a path in the home of a user that does not exist, wherever it stands on the command line."""
    for word in words:
        path = word.partition("=")[2] if word.startswith("--") else word
        if path.startswith("~") and os.path.expanduser(path) == path:  # noqa: PTH111
            user = path.partition("/")[0]
            raise UserError(
                f"{path}: there is no user {user[1:]}. For a folder of that name here, write ./{user}"
            )


def _parser(named: str = "") -> _Parser:
    """Every command; only the one that is named says what all its settings mean, which takes time."""
    parser = _Parser(
        prog="counterpart",
        description="Train, attack, evaluate and explain image classifiers that know where to be robust.",
        epilog="First steps: counterpart demo, then: counterpart train cifar10/part --data.root DIR",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"counterpart {__version__}")
    parser.set_defaults(commands=COMMANDS)  # completion tells a shell of all of them
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        about = (command.__doc__ or "").splitlines()[0]
        settings = f"settings:\n{describe(command.SETTINGS)}" if command.SETTINGS and name == named else None
        subparser = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=settings,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.configure(subparser)
        if name in TRACKED:
            subparser.add_argument(
                "--track",
                metavar="TRACKER",
                action="append",
                default=[],
                help="Give every record, as it is written, to tensorboard (an extra), or to module:function of your "
                "own, which is called as function(record, run). It may be given several times.",
            )
        # It is taken off the command line before the rest is read, wherever it stands.
        subparser.add_argument(
            DEBUG, action="store_true", help="Show where an error arose, and how to report it."
        )
    return parser
