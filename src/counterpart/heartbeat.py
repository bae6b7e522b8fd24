"""Signs of life of processes that work together, over the store through which they met.

A process that dies closes its connections, and the others hear of it at once. A process that hangs, or whose host
loses power or its network, closes nothing: then its silence is what tells.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol, runtime_checkable

PAUSE = 0.02  # seconds between two looks at the store, while processes meet
LEFT = "left"  # the last sign of a process that has done its work
BEATS = 6  # signs of life within the silence that counts as death


@runtime_checkable
class Store(Protocol):
    """What this module asks of a ``torch.distributed.Store``."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def get(self, key: str) -> bytes:
        """Read a value, and wait for it."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys have values."""

    def add(self, key: str, amount: int) -> int:
        """Add to a counter, and return what it counts then."""


def meet(store: Store, rank: int, size: int, patience: timedelta) -> str:
    """A word that the processes of this start have in common, and those of an earlier start do not.

    The store of ``torchrun`` outlives a restart, and holds what the processes of earlier starts wrote into it: without
    such a word, processes would look for each other under addresses of the dead. The number of restarts is no such
    word, because every host counts its own.

    The main process publishes its word together with the tokens that it has seen, and again until each process has
    confirmed it. A process believes what comes with its own token, which no earlier start can know.

    Raises:
        TimeoutError: the others did not come in time.
    """
    here, until = uuid.uuid4().hex, time.monotonic() + patience.total_seconds()
    others = range(1, size)
    if rank:
        store.set(f"token/{rank}", here)
    while time.monotonic() < until:
        if rank == 0:
            tokens = [_read(store, f"token/{other}") for other in others]
            store.set("meeting", " ".join([here, *tokens]))
            if all(store.check([f"{here}/{other}"]) for other in others):
                return here
        else:
            word, *tokens = _read(store, "meeting").split()
            if here in tokens:
                store.set(f"{word}/{rank}", "there")
                return word
        time.sleep(PAUSE)
    raise TimeoutError(f"process {rank} waited {patience} for the others, and they did not come.")


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else "-"


def watch(store: Store, rank: int, size: int, silence: float) -> Callable[[], None]:
    """Give signs of life from now on, and end this process when another has given none for ``silence`` seconds.

    The process ends by exit code 1 from another thread, because its main thread may wait for the dead one.

    Args:
        store: a connection of its own, which nothing else uses.
        rank: the number of this process.
        size: the number of processes.
        silence: in seconds; a process on a slow machine may need some of them for a single step.

    Returns:
        A function that ends the watch, and tells the others that this process has left.
    """
    departed = threading.Event()

    def beat() -> None:
        others = [other for other in range(size) if other != rank]
        heard = {other: ("", time.monotonic()) for other in others}
        count = 0
        while not departed.wait(silence / BEATS):
            count += 1
            try:
                store.set(f"alive/{rank}", str(count))
                for other in others:
                    sign = _read(store, f"alive/{other}")
                    if sign != heard[other][0]:
                        heard[other] = (sign, time.monotonic())
            except RuntimeError as error:  # the store is gone, and with it the host of the main process
                if not departed.is_set():
                    _end(f"the host that the processes meet at does not answer: {str(error).splitlines()[0]}")
                return
            silent = silent_of(heard, silence)
            if silent and not departed.is_set():
                _end(f"process {silent[0]} has given no sign of life for {silence:g} seconds")

    def leave() -> None:
        departed.set()
        thread.join()
        store.set(f"alive/{rank}", LEFT)
        until = time.monotonic() + silence
        # The store may live in the main process, which therefore leaves last.
        while rank == 0 and time.monotonic() < until:
            if all(_read(store, f"alive/{other}") == LEFT for other in range(1, size)):
                return
            time.sleep(PAUSE)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    return leave


def silent_of(heard: dict[int, tuple[str, float]], silence: float) -> Sequence[int]:
    """The processes that have not left, and whose last sign of life is older than ``silence`` seconds."""
    now = time.monotonic()
    return [other for other, (sign, when) in heard.items() if sign != LEFT and now - when > silence]


def _end(reason: str) -> None:
    """End the process, whatever its main thread is doing."""
    print(
        f"counterpart: {reason}. This process ends; the same command continues.", file=sys.stderr, flush=True
    )
    os._exit(1)
