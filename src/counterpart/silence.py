"""Silence that never lasts: where nothing was said for half a minute, whatever is under way says how far it is.

A thread speaks, because the main one may be in the middle of a long step.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY = 30.0  # seconds of silence, after which somebody speaks

Speak = Callable[[], None]
"""A function that says in a line how far something is, or nothing where a bar shows it."""


class _Watch:
    """Who would speak, the innermost last, and when somebody last did."""

    speakers: tuple[Speak, ...] = ()
    last = 0.0
    ended = threading.Event()
    thread: threading.Thread | None = None


_watch = _Watch()


@contextmanager
def broken_by(speak: Speak) -> Iterator[None]:
    """Let ``speak`` break every long silence while the body runs, but for silences within a body of this kind in it."""
    outer = _watch.speakers
    _watch.speakers = (*outer, speak)
    if _watch.thread is None or not _watch.thread.is_alive():  # it lives in no forked process
        hear()
        _watch.ended = threading.Event()
        _watch.thread = threading.Thread(target=_listen, args=(_watch.ended,), name="silence", daemon=True)
        _watch.thread.start()
    try:
        yield
    finally:
        _watch.speakers = outer
        if not outer:
            _watch.ended.set()
            _watch.thread.join()


def hear() -> None:
    """Something was just said."""
    _watch.last = time.monotonic()


def _listen(ended: threading.Event) -> None:
    while not ended.wait(max(0.01, _watch.last + EVERY - time.monotonic())):
        speakers = _watch.speakers
        if not speakers or time.monotonic() - _watch.last < EVERY:
            continue
        hear()
        try:
            speakers[-1]()
        except (OSError, ValueError):
            return  # the output is closed: the main thread learns it from what it writes itself
