"""Where to compute, and in which arithmetic."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import UserError


def resolve(name: str, threads: int | None = None) -> torch.device:
    """The device of a name; "auto" takes CUDA if there is one, else the CPU. Under ``torchrun``, this rank's GPU.

    Args:
        name: "auto", "cpu", "cuda" or "mps".
        threads: how many CPU threads this process uses from now on; None leaves that to torch.

    Raises:
        UserError: if the device is not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                "device cuda was asked for, but torch sees none. Use --device cpu, or run: counterpart doctor"
            )
        number = os.environ.get("LOCAL_RANK", "0")
        if not number.isdecimal():
            raise UserError(
                f"LOCAL_RANK {number!r} in the environment: expected a whole number, or unset it."
            )
        return torch.device("cuda", int(number))
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps was asked for, but torch sees none. Use --device cpu.")
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware is built for bfloat16: AMX or AVX512-BF16 on a CPU, Ampere or later on CUDA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def waits(tensor: torch.Tensor) -> bool:
    """Whether the host has to wait for a device before it can read a value of this tensor."""
    return tensor.device.type != "cpu"


def has_tf32(device: torch.device) -> bool:
    """Whether the hardware multiplies in TF32, which shortens float32 to ten bits: CUDA from Ampere on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def free_memory(device: torch.device) -> int:
    """The bytes of a GPU that this process can still take: those that nobody holds, and those of torch's own store."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def memory_of(work: Callable[[], object], device: torch.device) -> int:
    """The bytes of a GPU that some work needed at its peak, beside what was held before."""
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    return torch.cuda.max_memory_allocated(device) - held


def memory_format(model: nn.Module) -> torch.memory_format:
    """How a network's images and weights lie in memory: channels last, which is fastest everywhere.

    But for networks with a strided 1 x 1 convolution of fewer than 8 channels: there oneDNN's AVX2 kernel for the
    gradient of the input writes past its memory (torch 2.15), and the process dies.
    """
    narrow = any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 8
        for m in model.modules()
    )
    return torch.contiguous_format if narrow else torch.channels_last


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside the block float32 means float32: cuDNN's convolutions take the shorter TF32 by default.

    torch has an old and a new interface to this, and refuses to read the old flags where the two disagree, as compilers
    and users' models do. So both are set.
    """
    kinds = _arithmetic()
    before = [kind.fp32_precision for kind in kinds]
    try:
        _set_arithmetic(["ieee"] * len(kinds))
        yield
    finally:
        _set_arithmetic(before)


@contextmanager
def searching_in(precision: str) -> Iterator[None]:
    """A block in which attacks search: in TF32 where that is the precision, and else as things are outside of it."""
    if precision != "tf32":
        yield
        return
    before = [kind.fp32_precision for kind in _arithmetic()]
    try:
        _set_arithmetic(["tf32", "tf32", "tf32", before[-1]])
        yield
    finally:
        _set_arithmetic(before)


def _arithmetic() -> list[Any]:
    """What the new interface sets: cuDNN's convolutions and recurrent layers, and products on CUDA and elsewhere."""
    torch_backends: Any = torch.backends
    cudnn = torch_backends.cudnn
    return [cudnn.conv, cudnn.rnn, torch_backends.cuda.matmul, torch_backends.mkldnn.matmul]


def _set_arithmetic(precisions: Sequence[str]) -> None:
    """Set both interfaces, the old one first, because it writes into the new one."""
    convolutions, _, _, products = precisions
    torch.backends.cudnn.allow_tf32 = convolutions == "tf32"
    torch.set_float32_matmul_precision({"tf32": "high", "bf16": "medium"}.get(products, "highest"))
    for kind, precision in zip(_arithmetic(), precisions, strict=True):
        kind.fp32_precision = precision


@contextmanager
def repeatable_convolutions() -> Iterator[None]:
    """Inside the block cuDNN's convolutions give the same bits each time, as a run that goes on after a kill needs.

    Other layers are left as they are: torch has no kernel that repeats itself for the gradient of, among others,
    bilinear and adaptive pooling on CUDA.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most: of tensors on CUDA, else altogether, libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # the kernel's other count, ru_maxrss, begins with what the parent process held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on whatever device."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in str(error) for w in words)


def size_that_fits(work: Callable[[int], object], size: int, device: torch.device) -> int:
    """The largest of size / 2, size / 4, ... that ``work`` finds memory for; 0 if none."""
    while size := size // 2:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            work(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return size
    return 0
