"""The requests that end a training at its next step, with a checkpoint."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple


class Requests(NamedTuple):
    """The requests to a training between two steps.

    Attributes:
        stop: whether somebody asked the training to end.
        late: whether its deadline has passed.
        due: whether it is time for a checkpoint.
    """

    stop: bool = False
    late: bool = False
    due: bool = False

    @property
    def end(self) -> bool:
        """Whether the training shall not go on."""
        return self.stop or self.late


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """A block that yields a function which tells whether a stop was asked for.

    Inside the block, Ctrl-C and SIGTERM only set a flag, and a second Ctrl-C interrupts at once. A step that
    is under way is finished first, so that weights and optimiser never disagree.
    """
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
