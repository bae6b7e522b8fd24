"""Passes of a model that draws at random: what they draw is decided by a seed, and every generator is put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import nn

from ..seeding import derive, seeded_everywhere

KINDS = (torch.Generator, numpy.random.Generator, numpy.random.RandomState, random.Random)


@contextmanager
def seeded_passes(model: object, seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block a model's passes draw what the seed says; afterwards all generators are as they were before.

    These are the global generators of torch, numpy and Python, and those that the model's modules hold as attributes.

    Args:
        model: the model, or any other function, which has no generators of its own.
        seed: the seed of the first pass in the block; later passes go on where it ended.
        device: the device on which the model draws.
    """
    with generators_put_back(model):
        random.seed(seed)
        for number, generator in enumerate(generators_of(model)):
            _seed(generator, derive(seed, "generator", number))
        with seeded_everywhere(seed, device):
            yield


@contextmanager
def generators_put_back(model: object) -> Iterator[None]:
    """A block after which the model's generators, and the global ones of processors, are as they were before."""
    held, python, processor = generators_of(model), random.getstate(), torch.get_rng_state()
    states, arrays = [_state(generator) for generator in held], numpy.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        numpy.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(processor)
        for generator, state in zip(held, states, strict=True):
            _put_back(generator, state)


def generators_of(model: object) -> list[Any]:
    """The random generators that the modules of a model hold as attributes, each once."""
    if not isinstance(model, nn.Module):
        return []
    held = [
        value for module in model.modules() for value in vars(module).values() if isinstance(value, KINDS)
    ]
    return list({id(generator): generator for generator in held}.values())


def _state(generator: Any) -> Any:
    """The state of a generator of any kind."""
    if isinstance(generator, numpy.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if isinstance(generator, random.Random) else generator.get_state()


def _put_back(generator: Any, state: Any) -> None:
    """Give a generator a state that it had."""
    if isinstance(generator, numpy.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.set_state(state)


def _seed(generator: Any, seed: int) -> None:
    """Seed a generator of any kind."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, numpy.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, numpy.random.RandomState):
        generator.seed(seed % 2**32)
    else:
        generator.seed(seed)
