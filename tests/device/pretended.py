"""A CUDA device that is only pretended: tests see how the code treats one on a machine that has none.

    with pretend_device() as device:
        model.to("cuda")
        with device.counting() as counts:
            model(images.to("cuda"))
    print(counts.describe())

All values are real and are computed on the CPU. Each storage remembers whether it pretends to lie on the device. Two
modes of torch stand between the code and the values: one hears Python's calls, which name devices, and one hears the
operations below autograd, which compute.

An operation whose tensors lie in two places raises ``Mixed``, where CUDA would refuse it as well. Counted are launches,
which are operations on the device that are no views, and waits, in which the host stands still until the device has
done all of its work. Each is counted by the line of the project that caused it.

What it cannot show: the device's own kernels, their rounding and their errors, streams, memory, processes that talk
over NCCL, and code that was compiled.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SOURCE = str(Path(__file__).resolve().parents[2] / "src" / "counterpart")
DEVICE, HOST = torch.device("cuda", 0), torch.device("cpu")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operations that only look at a tensor otherwise, or at nothing on the device.
VIEWS = _words(
    "alias as_strided detach diagonal empty empty_like empty_strided expand is_pinned is_same_size lift_fresh "
    "new_empty new_empty_strided permute _reshape_alias resize_ select set_ slice split split_with_sizes squeeze "
    "t transpose unbind unfold unsqueeze _unsafe_view view view_as_complex view_as_real"
)
# Operations whose result, or its size, the host has to know before it goes on.
WAITING = _words(
    "_local_scalar_dense bincount equal histogram linalg_lstsq masked_select multinomial nonzero "
    "repeat_interleave unique_consecutive unique_dim _unique2"
)
INDEXING = _words("index _unsafe_index index_put index_put_ _index_put_impl_")
COPYING = _words("_to_copy copy_ _foreach_copy_")
# Beside pointwise operations, these take a single number that lies on the host.
TAKES_A_NUMBER = _words("fill_ full_like masked_fill masked_fill_ index_fill index_fill_ where")


class Mixed(RuntimeError):
    """Tensors in two places met in one operation."""


@dataclass
class Counts:
    """What was counted: launches by the project's line, and waits by (line, what the host waited for)."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str]] = field(default_factory=Counter)

    def describe(self) -> str:
        """The numbers, and where the waits come from, the most frequent first."""
        lines = [f"{self.launches.total()} launches, {self.waits.total()} waits"]
        lines += [f"{count:6} {what} at {line}" for (line, what), count in self.waits.most_common()]
        return "\n".join(lines)


def lies_there(tensor: Tensor) -> bool:
    """Whether a tensor pretends to lie on the device."""
    if tensor.layout != torch.strided:
        return False
    return getattr(_storage(tensor), "lies_there", False)


def put(tensor: Tensor, there: bool = True) -> Tensor:
    """Let a tensor, with all that share its storage, pretend to lie on the device or on the host."""
    if tensor.layout == torch.strided:
        _storage(tensor).lies_there = there
    return tensor


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in the arguments or the result of a call."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    return [tensor for member in value for tensor in tensors_in(member)]


def _storage(tensor: Tensor) -> Any:
    """The storage of a tensor, an object that lives, with its attributes, as long as the memory does."""
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def place_of(tensor: Tensor) -> torch.device:
    """Where a tensor pretends to lie."""
    return DEVICE if lies_there(tensor) else HOST


def project_line() -> str:
    """The innermost line of the project that is being executed."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(SOURCE):
            return f"{file[len(SOURCE) + 1 :]}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside of the project"


class PretendedDevice:
    """The device, which counts what happens on it."""

    def __init__(self) -> None:
        self.counts, self.silent = Counts(), False  # silent inside of calls that CUDA answers in another way
        self.inherits = False  # whether what is made inside of the current call lies with the call's tensors

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """A block whose launches and waits are counted by themselves."""
        before, self.counts = self.counts, Counts()
        try:
            yield self.counts
        finally:
            self.counts = before

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """A block in which nothing counts."""
        before, self.silent = self.silent, True
        try:
            yield
        finally:
            self.silent = before

    def launch(self) -> None:
        """Count a launch."""
        if not self.silent:
            self.counts.launches[project_line()] += 1

    def wait(self, what: str) -> None:
        """Count a wait of the host."""
        if not self.silent:
            self.counts.waits[project_line(), what] += 1

    def copy(self, source_there: bool, target_there: bool) -> None:
        """Count a copy between the places: the host waits for either way, if its memory is not pinned."""
        if source_there != target_there:
            self.wait("a copy from the device" if source_there else "a copy to the device")


class _Operations(TorchDispatchMode):
    """Hears every operation: refuses those that mix places, counts, and lets results lie with their operands."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = operation._schema.name.partition("::")[2]
        operands = tensors_in((args, kwargs))
        there = self._place_of_result(operation, name, args, operands, kwargs.get("device"))
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type != "meta":
            kwargs["device"] = HOST
        if there or any(map(lies_there, operands)):
            if name in WAITING and kwargs.get("output_size") is None:
                self.device.wait(name.strip("_"))
            if name not in VIEWS:
                self.device.launch()
        result = operation(*args, **kwargs)
        if there:
            known = {id(_storage(tensor)) for tensor in operands if tensor.layout == torch.strided}
            for made in tensors_in(result):
                if made.layout == torch.strided and id(_storage(made)) not in known:
                    put(made)
        return result

    def _place_of_result(
        self, operation: Any, name: str, args: Any, operands: list[Tensor], asked: Any
    ) -> bool:
        """Whether results lie on the device; refuses operands that do not lie together."""
        if name in COPYING:
            return self._copied(name, args, asked)
        if name in INDEXING:
            return self._indexed(name, args)
        if asked is not None:
            wanted = torch.device(asked).type
            in_backward = torch._C._current_graph_task_id() != -1
            return wanted == "cuda" or (wanted == "cpu" and (self.device.inherits or in_backward))
        there = [tensor for tensor in operands if lies_there(tensor)]
        here = [tensor for tensor in operands if not lies_there(tensor)]
        if there and here:
            takes_numbers = torch.Tag.pointwise in operation.tags or name in TAKES_A_NUMBER
            takes_numbers = takes_numbers or name.startswith("_foreach")
            if not takes_numbers or any(tensor.ndim for tensor in here):
                self._refuse(name, operands)
        return bool(there)

    def _copied(self, name: str, args: Any, asked: Any) -> bool:
        if name == "_to_copy":  # a real move is heard as a call of Python; this is what a call makes inside
            there = lies_there(args[0])
            return there or (asked is not None and torch.device(asked).type == "cuda")
        many = name == "_foreach_copy_"
        targets, sources = (args[0], args[1]) if many else ([args[0]], [args[1]])
        for target, source in zip(targets, sources, strict=True):
            self.device.copy(lies_there(source), lies_there(target))
        return lies_there(targets[0])

    def _indexed(self, name: str, args: Any) -> bool:
        """Indexing takes indices from the host, for the price of a copy; a mask waits for the number of its places."""
        there, writes = lies_there(args[0]), "put" in name
        value = args[2] if writes else None
        is_number = value is not None and value.ndim == 0 and not lies_there(value)
        for index in args[1]:
            if index is None:
                continue
            if lies_there(index) and not there:
                self._refuse(name, [args[0], index])
            if there and not lies_there(index):
                self.device.wait("a copy of an index to the device")
            elif there and index.dtype in (torch.bool, torch.uint8) and not is_number:
                self.device.wait("the number of places of a mask")
        if value is not None and lies_there(value) != there and not (there and value.ndim == 0):
            self._refuse(name, [args[0], value])
        return there

    def _refuse(self, name: str, operands: list[Tensor]) -> None:
        met = ", ".join(f"{tuple(tensor.shape)} on {place_of(tensor)}" for tensor in operands)
        raise Mixed(f"{name} at {project_line()}: {met}")


class _Calls(TorchFunctionMode):
    """Hears Python's calls: answers where a tensor lies, and moves tensors from place to place."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device
        self.answers: dict[Any, Callable[..., Any]] = {
            Tensor.device.__get__: lambda call, tensor: place_of(tensor),
            Tensor.is_cuda.__get__: lambda call, tensor: lies_there(tensor),
            Tensor.is_cpu.__get__: lambda call, tensor: not lies_there(tensor),
            Tensor.to: self._to,
            Tensor.cpu: lambda call, tensor, **options: self._moved(tensor, there=False),
            Tensor.cuda: lambda call, tensor, *args, **options: self._moved(tensor, there=True),
            Tensor.tolist: self._read,
            Tensor.numpy: self._as_numpy,
            Tensor.__array__: self._as_numpy,
            Tensor.__deepcopy__: lambda call, tensor, memo: put(call(tensor, memo), lies_there(tensor)),
            Tensor.new_tensor: self._tensor_beside,
            torch.tensor: self._tensor,
            torch.as_tensor: self._tensor,
            torch.nn.functional.one_hot: self._one_hot,
        }

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        answer = self.answers.get(call)
        if answer is not None:
            return answer(call, *args, **kwargs)
        return self._pass_on(call, *args, **kwargs)

    def _pass_on(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """The call itself. What it makes inside lies with its tensors, unless it names a device."""
        before = self.device.inherits
        tensors = tensors_in((args, kwargs))
        self.device.inherits = kwargs.get("device") is None and any(map(lies_there, tensors))
        try:
            return call(*args, **kwargs)
        finally:
            self.device.inherits = before

    def _to(self, call: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``Tensor.to``, whose arguments may come in several orders."""
        there, options = lies_there(tensor), dict(kwargs)
        flags = [value for value in args if isinstance(value, bool)]
        for value in (*args, options.pop("device", None), options.pop("other", None)):
            if isinstance(value, Tensor):
                there, options["dtype"] = lies_there(value), value.dtype
            elif isinstance(value, torch.dtype):
                options["dtype"] = value
            elif isinstance(value, (str, torch.device)) or (
                isinstance(value, int) and not isinstance(value, bool)
            ):
                there = torch.device(value).type == "cuda"
                if torch.device(value).type == "meta":
                    return call(tensor, *args, **kwargs)
        names = ("non_blocking", "copy")
        options |= dict(zip(names, flags, strict=False))
        return self._moved(tensor, there, **options)

    def _moved(self, tensor: Tensor, there: bool, non_blocking: bool = False, **options: Any) -> Tensor:
        """A tensor in the other place, or in the same place as another type."""
        options = {name: value for name, value in options.items() if value is not None}
        if there == lies_there(tensor):
            return tensor.to(**{"dtype": tensor.dtype, **options})
        if not (non_blocking and there):
            self.device.copy(lies_there(tensor), there)
        with self.device.unheard():
            return put(tensor.to(**{"dtype": tensor.dtype, **options, "copy": True}), there)

    def _read(self, call: Any, tensor: Tensor) -> Any:
        if lies_there(tensor):
            self.device.wait("tolist")
        return call(tensor)

    def _as_numpy(self, call: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if lies_there(tensor):
            raise Mixed(f"numpy of a tensor on the device at {project_line()}")
        return call(tensor, *args, **kwargs)

    def _tensor(self, call: Any, data: Any, *, device: Any = None, **options: Any) -> Tensor:
        """``torch.tensor`` and ``torch.as_tensor``."""
        there = device is not None and torch.device(device).type == "cuda"
        if isinstance(data, Tensor):
            moved = data if device is None else self._moved(data, there)
            return put(call(moved, **options), lies_there(moved))
        if any(map(lies_there, tensors_in(data))):
            self.device.wait("numbers of tensors on the device")
        made: Tensor = call(data, **options)
        if there:
            self.device.copy(False, True)
            put(made)
        return made

    def _tensor_beside(self, call: Any, beside: Tensor, data: Any, **options: Any) -> Tensor:
        """``Tensor.new_tensor``."""
        there = options.pop("device", place_of(beside))
        return self._tensor(torch.tensor, data, device=there, **{"dtype": beside.dtype, **options})

    def _one_hot(self, call: Any, *args: Any, **kwargs: Any) -> Tensor:
        """``one_hot``, which looks at the values on processors alone."""
        with self.device.unheard():
            return self._pass_on(call, *args, **kwargs)


class _Autocast(torch.autocast):
    """Autocast of the device, which is that of the processor here."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


ANSWERS: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "_is_in_bad_fork": lambda: False,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "max_memory_allocated": lambda device=None: 1,
    "get_device_capability": lambda device=None: (9, 0),
    "get_device_name": lambda device=None: "pretended",
    "get_rng_state": lambda device=None: torch.default_generator.get_state(),
    "set_rng_state": lambda state, device=None: None,
    "default_generators": (SimpleNamespace(manual_seed=lambda seed: None),),
    "is_current_stream_capturing": lambda: False,
    "mem_get_info": lambda device=None: (2**37, 2**37),
    "memory_allocated": lambda device=None: 0,
    "memory_reserved": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
}


def _grouped(group: Callable[..., Any]) -> Callable[..., Any]:
    """How optimisers group their tensors by device, which they ask of C++ and not of Python."""

    def grouped(lists: Any, *args: Any, **kwargs: Any) -> Any:
        places = [place_of(tensor) for tensor in tensors_in(lists)[:1]] or [HOST]
        return {(places[0], dtype): members for (_, dtype), members in group(lists, *args, **kwargs).items()}

    return grouped


@contextmanager
def pretend_device() -> Iterator[PretendedDevice]:
    """A block in which torch seems to have one CUDA device. What lies there ends with the block."""
    device = PretendedDevice()
    with ExitStack() as stack:
        for name, answer in ANSWERS.items():
            stack.enter_context(patch.object(torch.cuda, name, answer))
        stack.enter_context(patch.object(torch.optim.Optimizer, "_accelerator_graph_capture_health_check"))
        name = "_group_tensors_by_device_and_dtype"
        group = staticmethod(_grouped(getattr(torch.optim.Optimizer, name)))
        stack.enter_context(patch.object(torch.optim.Optimizer, name, group))
        for owner in (torch, torch.amp):
            stack.enter_context(patch.object(owner, "autocast", _Autocast))
        stack.enter_context(_Operations(device))
        stack.enter_context(_Calls(device))
        yield device
