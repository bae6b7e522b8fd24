"""Rank, world size and sums over processes. On one process every function is a no-op."""

import os
from collections.abc import Iterable
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


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
    """Join the processes that ``torchrun`` started; does nothing otherwise."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for every process."""
    if dist.is_initialized():
        dist.barrier()


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
    if world_size() == 1:
        return flag
    tensor = torch.tensor(int(flag), device=device)
    dist.all_reduce(tensor)
    return bool(tensor)


def from_main(number: float, device: torch.device | str = "cpu") -> float:
    """The main process's number, on every process."""
    if world_size() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return float(tensor)


def gather(thing: T) -> list[T]:
    """What every process has, on every process, by rank. Only for objects that this program made itself."""
    if world_size() == 1:
        return [thing]
    everywhere: list[T | None] = [None] * world_size()
    dist.all_gather_object(everywhere, thing)
    return cast(list[T], everywhere)
