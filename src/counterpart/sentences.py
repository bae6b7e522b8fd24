"""The one place that turns exceptions into sentences and exit codes, for whoever runs a command.

    0  done      2  something that the user can mend      70  a bug in Counterpart
    130  stopped by Ctrl-C      141  the reader of our output has seen enough

A traceback that reaches a user unasked is a bug. ``--debug`` shows it.
"""

import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from . import interrupts
from .errors import UserError
from .terminal import show

MENDABLE, BUG, STOPPED, NO_READER = 2, 70, interrupts.CODE, 141
HOME = Path(__file__).parent
INSTALLED = ("site-packages", "dist-packages")
CONTINUING = ("train", "sweep", "evaluate", "corruptions", "where", "audit", "papers", "demo")
HOW_TO_REPORT = (
    "To report this, open an issue where you got Counterpart from, with the lines above, what counterpart doctor "
    "prints, and how your data and model differ from a built-in recipe. Look the lines through before: they may name "
    "files of yours."
)


def answer(error: BaseException, words: Sequence[str] = (), debug: bool = False) -> int:
    """Say in one line how a command ended, and return its exit code.

    Args:
        error: what ended it.
        words: the words of the command line.
        debug: whether the traceback is shown above, and below it how to report it.
    """
    if interrupts.were_heard() and not isinstance(error, KeyboardInterrupt):
        error = KeyboardInterrupt()  # which an import turned into an error of its own
    if isinstance(error, BrokenPipeError):
        forget_output()
        return NO_READER
    line, code = _sentence(error, words)
    lines = traceback.format_exception(error) if debug else []
    with suppress(OSError):  # nobody reads the error stream any more
        show(
            *"".join(lines).splitlines(),
            line,
            *([HOW_TO_REPORT] if debug and code == BUG else []),
            error=True,
        )
    return code


def _sentence(error: BaseException, words: Sequence[str]) -> tuple[str, int]:
    """What happened, in one line, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        continues = (words[:1] and words[0] in CONTINUING) or "prepare" in words[:2]
        return (
            f"Stopped.{' The same command continues from the last checkpoint.' if continues else ''}",
            STOPPED,
        )
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return f"counterpart: error: {text}", MENDABLE
    if isinstance(error, MemoryError):
        return "counterpart: error: out of memory. Use a smaller batch, or a machine with more.", MENDABLE
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.filename}: " if error.filename is not None else ""
        reason = error.strerror or type(error).__name__
        return f"counterpart: error: {what}{reason}. Mend that, and run the same command again.", MENDABLE
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    is_ours, place = _place_of(error)
    if not is_ours:
        return f"counterpart: error: your code failed with {said} ({place}). --debug shows where.", MENDABLE
    return (
        f"counterpart: bug: {said} ({place}). This is a mistake in Counterpart. The same command with --debug shows "
        "the traceback, and how to report it.",
        BUG,
    )


def _place_of(error: BaseException) -> tuple[bool, str]:
    """Whether an error arose in this package, not in a user's own code, and the innermost line of either."""
    library = Path(sysconfig.get_path("stdlib"))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        place = f"{file.name}, line {frame.lineno}"
        if file.is_relative_to(HOME):
            return True, f"{file.relative_to(HOME.parent).as_posix()}, line {frame.lineno}"
        if file.is_file() and not file.is_relative_to(library) and not set(INSTALLED) & set(file.parts):
            return False, place
    return True, "place unknown"


def finish_output() -> None:
    """Write what is still in memory of the output, while an error can still be answered."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            forget_output()
            if isinstance(error, BrokenPipeError):
                raise
            raise UserError(f"Could not write the output: {error.strerror}.") from error


def forget_output() -> None:
    """Let the output go nowhere from now on: else Python would fail on it once more when it ends."""
    with suppress(OSError, ValueError):  # it is closed, or no file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
