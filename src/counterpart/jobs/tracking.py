"""Trackers: functions that are given every record as it is written, of the user's own or TensorBoard's."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..catalogue import describe_source, load_users_object, refuse_signature
from ..errors import UserError, nearest
from ..records import Listener, Record, heard_by
from .notes import say

TENSORBOARD = "tensorboard"
EXPECTED = "function(record, run), which gets a counterpart record and the folder of its run"


@contextmanager
def tracked_by(names: Sequence[str]) -> Iterator[None]:
    """Give every record of the body to trackers by name: "tensorboard", or module:function of the user's own.

    A tracker that is an object with a method ``close`` is closed at the end.

    Raises:
        UserError: there is no such tracker, or it cannot be called so.
    """
    with ExitStack() as stack:
        for name in names:
            listen = _open(name)
            close = getattr(listen, "close", None)
            if callable(close) and not inspect.isclass(listen):
                stack.callback(close)
            stack.enter_context(heard_by(listen, f"--track {name}"))
        yield


@contextmanager
def tracked(on_record: Any) -> Iterator[None]:
    """Give every record of the body to a function, if there is one.

    Raises:
        UserError: it cannot be called so.
    """
    if on_record is None:
        yield
        return
    if not callable(on_record):
        raise UserError(f"on_record is a {EXPECTED}; got {type(on_record).__name__}.")
    _refuse_other_arguments("on_record", on_record)
    with heard_by(on_record, "on_record"):
        yield


def _open(name: str) -> Listener:
    if name == TENSORBOARD:
        from .tensorboard import TensorBoard

        return TensorBoard()
    if ":" not in name:
        raise UserError(f"--track {name}: {nearest(name, [TENSORBOARD])} Your own is module:function.")
    listen: Listener = load_users_object(name)
    if not callable(listen):
        raise UserError(f"--track {name} is a {EXPECTED}; got {type(listen).__name__}.")
    _refuse_other_arguments(f"--track {name}", listen)
    say([describe_source(name, name)])
    return listen


def _refuse_other_arguments(what: str, listen: Listener) -> None:
    refuse_signature(what, listen, EXPECTED, Record("metric", "accuracy/clean"), Path())
