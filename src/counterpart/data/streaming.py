"""Batches that worker processes read ahead, in the order in which they were asked for.

Workers write into a ring of slots that all processes share, so that a batch costs no message but its number, and
memory stays what it was at the first batch. They are forked, so that they need neither a copy of the data set nor
one that can be pickled. Where the system cannot fork, a thread reads.
"""

import gc
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import UserError
from . import decoding

MOST_WORKERS = 16
SPARE = 2  # slots beside one for each worker: the batch in use, and one that waits

Job = TypeVar("Job")
Read = Callable[[Job], Sequence[Tensor]]
Ring = Sequence[Tensor]
"""For each tensor of a batch, room for it in every slot: (slots, b, ...)."""


def default_workers() -> int:
    """One worker for each processor that this process may use; none where there is one only."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    here = os.environ.get("LOCAL_WORLD_SIZE", "1")  # processes of this host, as torchrun says
    if not here.isdecimal() or int(here) == 0:
        raise UserError(
            f"LOCAL_WORLD_SIZE {here!r} in the environment: expected a whole number, or unset it."
        )
    workers = there // int(here)
    return min(workers, MOST_WORKERS) if workers > 1 else 0


def stream(
    read: Read[Job], jobs: Iterable[Job], room: Sequence[tuple[Sequence[int], torch.dtype]], workers: int
) -> Iterator[tuple[Job, Sequence[Tensor]]]:
    """Yield every job with what ``read`` makes of it, in the order of the jobs, while later ones are read.

    Args:
        read: a job -> tensors (b, ...) on the CPU.
        jobs: what to read; taken from as far as is read ahead.
        room: the largest shape (b, ...) and the type of each of the tensors.
        workers: the number of processes that read; 0: a thread of this process.

    Yields:
        Views of the ring, which hold until the next batch is asked for.

    Raises:
        UserError: a worker died.
    """
    workers = workers if hasattr(os, "fork") else 0
    coming, slots = iter(jobs), workers + SPARE
    ring = [torch.empty((slots, *shape), dtype=kind) for shape, kind in room]
    if workers:
        for tensor in ring:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    waiting: deque[tuple[Job, int, Future[int]]] = deque()
    with _readers(read, ring, workers) as (pool, fill):
        for slot, job in enumerate(islice(coming, slots)):
            waiting.append((job, slot, pool.submit(fill, slot, job)))
        while waiting:
            job, slot, reading = waiting.popleft()
            try:
                size = reading.result()
            except BrokenProcessPool:
                raise UserError(
                    "a process that reads images was killed: memory, or room in /dev/shm, is exhausted. "
                    "Read with fewer processes: --data.workers."
                ) from None
            yield job, [tensor[slot, :size] for tensor in ring]
            for later in islice(coming, 1):
                waiting.append((later, slot, pool.submit(fill, slot, later)))


@contextmanager
def _readers(
    read: Read[Any], ring: Ring, workers: int
) -> Iterator[tuple[Executor, Callable[[int, Any], int]]]:
    """Whoever reads, and the function that they run."""
    pool: Executor
    if workers == 0:
        pool, fill = ThreadPoolExecutor(1), lambda slot, job: _fill(read, ring, slot, job)
    else:
        context = multiprocessing.get_context("fork")
        pool, fill = ProcessPoolExecutor(workers, context, _begin, (read, ring, os.getpid())), _fill_held
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)
            yield pool, fill
    finally:
        pool.shutdown(cancel_futures=True)


def _fill(read: Read[Any], ring: Ring, slot: int, job: Any) -> int:
    """Read a job into a slot, and return the number of samples."""
    tensors = read(job)
    for tensor, place in zip(tensors, ring, strict=True):
        place[slot, : len(tensor)] = tensor
    return len(tensors[0])


_held: list[Any] = []  # in a worker: what it reads with, and the ring


def _begin(read: Read[Any], ring: Ring, parent: int) -> None:
    """Make a forked process a worker: a single thread, deaf to Ctrl-C, gone when its parent is."""
    gc.freeze()  # what is inherited is not looked through, which would copy its memory
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    decoding.WORKERS = 1
    _held[:] = [read, ring]
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    """End this process when its parent is gone, which holds nothing that would tell."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _fill_held(slot: int, job: Any) -> int:
    read, ring = _held
    return _fill(read, ring, slot, job)
