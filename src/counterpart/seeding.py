"""Randomness as an argument: counter-based draws per sample, one derived seed per other purpose.

A draw is a pure function of (seed, purpose, data-set index, counters, position). So a sample meets the same
draws whatever else is in its batch, however many processes there are, and wherever a run was resumed: no
random state needs saving. Only integer operations decide the bits, so the draws agree between devices.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor

# The finaliser of splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators").
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def _mix(bits: Tensor) -> Tensor:
    """Scramble int64 values in place; integer overflow wraps, shifts are logical."""
    bits.bitwise_xor_((bits >> 30).bitwise_and_(0x3FFFFFFFF)).mul_(_MIX_1)
    bits.bitwise_xor_((bits >> 27).bitwise_and_(0x1FFFFFFFFF)).mul_(_MIX_2)
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x1FFFFFFFF))


def derive(seed: int, purpose: str, *counters: int) -> int:
    """Derive a seed of 63 bits for one purpose, such as ``derive(seed, "order", epoch)``."""
    text = "/".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators inside the block, and put them back afterwards.

    For code that accepts no generator: weight initialisation, dropout.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for generator_device in cuda:
            torch.cuda.default_generators[generator_device.index or 0].manual_seed(seed)
        yield


@contextmanager
def seeded_everywhere(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Like ``seeded``, for numpy's global generator as well: a user's own code may draw from either."""
    state = numpy.random.get_state()  # noqa: NPY002 - other people's code draws from the global generator
    numpy.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        with seeded(seed, device):
            yield
    finally:
        numpy.random.set_state(state)  # noqa: NPY002


@dataclass(frozen=True)
class Keys:
    """Counter-based randomness for a batch: ``Keys(seed, "pgd", batch.index)``.

    Attributes:
        seed: the run's seed.
        attack: what the draws are for; two names never share draws.
        index: (B,) data-set index of each sample.
    """

    seed: int
    attack: str
    index: Int[Tensor, " b"]

    def fold(self, *counters: int | str) -> "Keys":
        """Keys for a sub-purpose, such as an epoch or a restart."""
        return self._like("/".join([self.attack, *map(str, counters)]), self.index)

    def __getitem__(self, keep: Tensor | slice) -> "Keys":
        return self._like(self.attack, self.index[keep])

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Keys":
        """The same keys, whose draws lie on ``device``."""
        return self if self.index.device == device else self._like(self.attack, self.index.to(device))

    def _like(self, attack: str, index: Tensor) -> "Keys":
        """Keys of the same kind for another purpose or other samples."""
        return Keys(self.seed, attack, index)

    def _derived(self, step: int, stream: int) -> int | Tensor:
        """The seed of one draw."""
        return derive(self.seed, self.attack, step, stream)

    @property
    def _golden(self) -> int | Tensor:
        return _GOLDEN

    def bits(self, step: int, shape: tuple[int, ...], stream: int = 0) -> Int[Tensor, "b ..."]:
        """``(B, *shape)`` int64 with 64 random bits each."""
        rows = _mix(self.index.long() * self._golden + self._derived(step, stream))
        size = torch.Size(shape).numel()
        cells = torch.arange(1, size + 1, device=self.index.device) * self._golden
        return _mix(rows[:, None] + cells).view(len(self.index), *shape)

    def uniform(self, step: int, shape: tuple[int, ...], stream: int = 0) -> Float[Tensor, "b ..."]:
        """``(B, *shape)`` float32, uniform on [0, 1): multiples of 2^-24."""
        return (self.bits(step, shape, stream) >> 40 & 0xFFFFFF).float() * 2.0**-24

    def normal(self, step: int, shape: tuple[int, ...]) -> Float[Tensor, "b ..."]:
        """``(B, *shape)`` float32, standard normal (Box and Muller 1958)."""
        radius = (-2 * torch.log1p(-self.uniform(step, shape))).sqrt()
        return radius * (2 * torch.pi * self.uniform(step, shape, stream=1)).cos()

    def integers(self, step: int, high: int | Int[Tensor, " b"], stream: int = 0) -> Int[Tensor, " b"]:
        """(B,) int64, uniform on 0 .. high - 1; ``high`` may differ from sample to sample."""
        return (self.bits(step, (1,), stream)[:, 0] >> 1 & 0x7FFFFFFFFFFFFFFF) % high


DrawName = tuple[str, int, int]
"""The name of a draw: what follows the first name of its keys, its step and its stream."""


@dataclass(frozen=True)
class ListedKeys(Keys):
    """Keys that list the draws that they are asked for, so that ``TensorKeys`` can be made for the same ones.

    Attributes:
        root: the first name of these keys, which is left out in the list.
        draws: the list, which is filled in place.
    """

    root: str = ""
    draws: list[DrawName] = field(default_factory=list)

    def _like(self, attack: str, index: Tensor) -> "ListedKeys":
        return ListedKeys(self.seed, attack, index, self.root, self.draws)

    def _derived(self, step: int, stream: int) -> int:
        draw = self.attack.removeprefix(self.root), step, stream
        if draw not in self.draws:
            self.draws.append(draw)
        return derive(self.seed, self.attack, step, stream)


@dataclass(frozen=True)
class TensorKeys(Keys):
    """Keys whose seeds lie in a tensor: code that was compiled once draws anew where the tensor has other values.

    ``Keys`` derive a number of the host from their names, which a compiled graph, and a graph that a device replays,
    would keep for ever.

    Attributes:
        draws: the place of each draw in ``seeds``.
        seeds: what ``seeds_of`` makes.
    """

    draws: Mapping[DrawName, int] = field(default_factory=dict)
    seeds: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))

    def _like(self, attack: str, index: Tensor) -> "TensorKeys":
        return TensorKeys(self.seed, attack, index, self.draws, self.seeds)

    def _derived(self, step: int, stream: int) -> Tensor:
        return self.seeds[self.draws[self.attack, step, stream]]

    @property
    def _golden(self) -> Tensor:
        return self.seeds[-1]  # a constant would be multiplied out by the compiler, beyond 64 bits


def seeds_of(seed: int, root: str, draws: Iterable[DrawName]) -> Int[Tensor, " n"]:
    """The seeds of draws that belong to a first name, for ``TensorKeys`` that have "" for a first name."""
    seeds = [derive(seed, root + suffix, step, stream) for suffix, step, stream in draws]
    return torch.tensor([*seeds, _GOLDEN])
