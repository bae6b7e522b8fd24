"""Batches, read and compared."""

import dataclasses

import torch

from counterpart.data.loaders import batches


def collect(images, **arguments):
    """All batches of five on the CPU, unless the arguments say otherwise."""
    return list(batches(images, **{"batch_size": 5, "device": torch.device("cpu")} | arguments))


def same(first, second):
    """Assert that two lists of batches hold the same tensors."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for field in dataclasses.fields(a):
            x, y = getattr(a, field.name), getattr(b, field.name)
            assert (x is None) == (y is None)
            assert x is None or torch.equal(x, y)
