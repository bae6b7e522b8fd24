"""Rank, world size and sums over processes. On one process every function is a no-op."""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from . import heartbeat
from .errors import UserError

T = TypeVar("T")
PIECE = 2**26  # bytes in one message, of files that are sent
MOST_PROCESSES = 1_000_000
HINT = "torchrun sets these variables; without it, unset WORLD_SIZE to use one process."
MEETING = timedelta(minutes=10)  # for all processes to start
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.5  # seconds between two looks at a barrier


@dataclass
class _Joined:
    """How this process has joined the others: their store, the barriers so far, and how to leave."""

    store: Store | None = None
    barriers: int = 0
    leave: Callable[[], None] | None = None


_joined = _Joined()


def rank() -> int:
    """This process's number, 0 on one process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


def start() -> None:
    """Join the processes that ``torchrun`` started; does nothing otherwise.

    A process that gives no sign of life for ``COUNTERPART_SILENCE`` seconds (60) counts as dead, and the others end.
    Then ``torchrun --max-restarts`` starts all of them again, or the job ends.
    """
    if dist.is_initialized() or started_together() == 1:
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(_number_of("LOCAL_RANK", 0, torch.cuda.device_count() - 1))
        backend = "cpu:gloo,cuda:nccl"
    silence()  # refuses what is no number before the processes meet
    try:
        store, number, size = next(rendezvous("env://", timeout=MEETING))
        store = PrefixStore("counterpart", store)
        of_this_start = PrefixStore(heartbeat.meet(store, number, size, MEETING), store)
    except (RuntimeError, TimeoutError, OSError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the processes could not meet at {place}: {reason}. {HINT}") from error
    dist.init_process_group(backend, store=of_this_start, rank=number, world_size=size)
    _joined.store, _joined.barriers = of_this_start, 0
    apart = of_this_start.clone()
    apart.set_timeout(timedelta(seconds=silence()))
    _joined.leave = heartbeat.watch(apart, number, size, silence())


def started_together() -> int:
    """How many processes were started together, by the variables that ``torchrun`` sets.

    Raises:
        UserError: one of the variables makes no sense, or is missing.
    """
    size = _number_of("WORLD_SIZE", 1, MOST_PROCESSES) if "WORLD_SIZE" in os.environ else 1
    if size > 1:
        _number_of("RANK", 0, size - 1)
        if "LOCAL_RANK" in os.environ:
            _number_of("LOCAL_RANK", 0, size - 1)
        _number_of("MASTER_PORT", 1, 65535)
        if not os.environ.get("MASTER_ADDR"):
            raise UserError(f"WORLD_SIZE is {size}, and MASTER_ADDR is missing. {HINT}")
    return size


def _number_of(variable: str, least: int, most: int) -> int:
    """The whole number that a variable of the environment holds."""
    text = os.environ.get(variable)
    if text is None:
        raise UserError(f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, and {variable} is missing. {HINT}")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise UserError(
            f"{variable} {text[:100]!r} in the environment: expected a whole number from {least} to {most}. {HINT}"
        )
    return int(text)


def silence() -> float:
    """After how many seconds without a sign of life a process counts as dead.

    Raises:
        UserError: ``COUNTERPART_SILENCE`` is no positive number.
    """
    text = os.environ.get("COUNTERPART_SILENCE", "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UserError(f"COUNTERPART_SILENCE {text}: expected seconds, such as 60.")
    return seconds


def stop() -> None:
    """Leave the group, once all have done their work."""
    if dist.is_initialized():
        barrier()
        if _joined.leave is not None:
            _joined.leave()
        _joined.store = _joined.leave = None
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for every process, however long its work takes: one that dies meanwhile is found by its silence."""
    if _joined.store is None:
        if dist.is_initialized():
            dist.barrier()
        return
    _joined.barriers += 1
    name, pause = f"barrier/{_joined.barriers}", FIRST_PAUSE
    _joined.store.add(name, 1)
    while _joined.store.add(name, 0) < world_size():
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def share(length: int) -> slice:
    """This process's contiguous part of a batch of ``length``; parts differ in size by at most one."""
    first, size = rank() * length // world_size(), (rank() + 1) * length // world_size()
    return slice(first, size)


def sum_(tensors: Iterable[Tensor]) -> None:
    """Replace every tensor by its sum over processes, in one message per type."""
    if world_size() == 1:
        return
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        dist.all_reduce(flat)
        for tensor, part in zip(group, torch.split(flat, [tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(part.view_as(tensor))


def any_(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether the flag is set on any process."""
    return any_of([flag], device)[0]


def any_of(flags: Sequence[bool], device: torch.device | str = "cpu") -> list[bool]:
    """Whether each of the flags is set on any process, in one message."""
    if world_size() == 1:
        return [*flags]
    counts = torch.tensor([int(flag) for flag in flags], device=device)
    dist.all_reduce(counts)
    return [count > 0 for count in counts.tolist()]


def from_main(number: float, device: torch.device | str = "cpu") -> float:
    """The main process's number, on every process."""
    if world_size() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return float(tensor)


def bytes_from(source: int, content: bytes) -> bytes:
    """The bytes of one process, on every process. What the others pass is not looked at."""
    if world_size() == 1:
        return content
    size = torch.tensor(len(content))
    dist.broadcast(size, source)
    buffer = torch.empty(int(size), dtype=torch.uint8)
    if rank() == source and content:
        buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    for piece in torch.split(buffer, PIECE):
        dist.broadcast(piece, source)
    return buffer.numpy().tobytes()


def gather(thing: T) -> list[T]:
    """What every process has, on every process, by rank. Only for objects that this program made itself."""
    if world_size() == 1:
        return [thing]
    everywhere: list[T | None] = [None] * world_size()
    dist.all_gather_object(everywhere, thing)
    return cast(list[T], everywhere)
