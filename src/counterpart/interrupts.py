"""Ctrl-C from the first line of a command to its last: one sentence, and never a traceback."""

import os
import signal
import sys
from types import FrameType
from typing import Any


class _Heard:
    """Whether Ctrl-C was heard."""

    ctrl_c = False


_heard = _Heard()
SHOW_CURSOR = b"\x1b[?25h"
CODE = 130  # of a command that was stopped


def listen() -> None:
    """Answer Ctrl-C from now on, unless whoever started this process decided that it shall not."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)
        sys.unraisablehook = _hear_of_what_was_swallowed


def were_heard() -> bool:
    """Whether Ctrl-C was heard. An import that it interrupts may turn it into an error of its own."""
    return _heard.ctrl_c


def end_silently() -> None:
    """Let Ctrl-C end the process without a word from now on: all is written, and Python takes itself apart."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    """End what is under way in good order the first time, and the process at once the second time."""
    if _heard.ctrl_c or _is_importing(frame):
        end_now()
    _heard.ctrl_c = True
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Whether modules are being imported. Some of torch's end by an abort where an exception comes in between."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _hear_of_what_was_swallowed(failure: Any) -> None:
    """End the process where Ctrl-C came within something that swallows exceptions, such as a destructor."""
    if failure.exc_type is KeyboardInterrupt:
        end_now()
    sys.__unraisablehook__(failure)


def end_now() -> None:
    """Say that it was stopped, and end the process."""
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)  # which a progress bar hides
    os.write(2, b"Stopped.\n")
    os._exit(CODE)
