"""Which network of timm or torchvision weights look like, by the names and shapes of their tensors."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from functools import partial
from itertools import chain

import timm
import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)
SECONDS = 60  # a guess is for an error message: it may not take long


def guess_network(weights: Mapping[str, Tensor], wanted: str) -> str | None:
    """The network whose names and shapes these weights have, its final layer aside; None where none is known.

    Networks that resemble the wanted one in name are looked at first. No weights are made, and none are downloaded.

    Args:
        weights: by name, under whatever prefix.
        wanted: the name of the network that they were meant for.
    """
    deadline = time.monotonic() + SECONDS
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    names: list[str] = []
    for name, head, prefix, make in chain(_of_timm(shapes, wanted), _of_torchvision()):
        if time.monotonic() > deadline or (names and name.startswith("torchvision")):
            break
        if not names or _variants(name, names[0]):
            network = _shapes_of(name, make)
            last = next(reversed(network), "").rpartition(".")[0] if head is None else head
            expected = {prefix + key: shape for key, shape in network.items()}
            if _without(shapes, prefix, last) == _without(expected, prefix, last):
                names.append(name)
    return " or ".join(names[:3]) or None


def say_what_it_looks_like(weights: Mapping[str, Tensor], wanted: str) -> str:
    """The answer of ``guess_network`` as a sentence that follows another; "" where no network is known."""
    network = guess_network(weights, wanted)
    return "" if network is None else f" The file looks like {network}."


Candidate = tuple[str, str | None, str, Callable[[], nn.Module]]
"""A name to print, the final layer (None: the last one), the prefix of the file's names, and what makes the network."""


def _of_timm(shapes: Mapping[str, tuple[int, ...]], wanted: str) -> list[Candidate]:
    """The networks of timm whose first layer has a name that the file knows."""
    candidates: list[Candidate] = []
    for name in sorted(timm.list_models(), key=lambda name: -_alike(name, wanted)):
        config = timm.get_pretrained_cfg(name)
        first, head = (config.first_conv, config.classifier) if config is not None else (None, None)
        if not isinstance(first, str) or not isinstance(head, str):
            continue
        prefixes = [key.removesuffix(f"{first}.weight") for key in shapes if key.endswith(f"{first}.weight")]
        prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
        if prefixes:
            prefix = min(prefixes, key=len)
            candidates.append((f"timm/{name}", head, prefix, partial(timm.create_model, name)))
    return candidates


def _of_torchvision() -> Iterator[Candidate]:
    """The classifiers of torchvision, whose final layers have various names."""
    from torchvision import models  # takes long to import, and is asked last

    for name in models.list_models(module=models):
        yield f"torchvision's {name}", None, "", partial(models.get_model, name, weights=None)


def _without(shapes: Mapping[str, tuple[int, ...]], prefix: str, head: str) -> dict[str, tuple[int, ...]]:
    """What lies under the prefix, less the final layer and counters that old files lack."""
    inside = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    return {
        name: shape
        for name, shape in inside.items()
        if not (head and name.startswith(f"{head}.")) and not name.endswith("num_batches_tracked")
    }


def _shapes_of(name: str, make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shapes of a network's tensors, without making any; none of a network whose code wants values of its own."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ways to initialise, which do not matter here
        try:
            return {key: tuple(tensor.shape) for key, tensor in make().state_dict().items()}
        except NotImplementedError as error:  # RegNet computes its widths with tensors
            _log.debug("%s cannot be looked at without making it: %s", name, error)
            return {}


def _variants(name: str, other: str) -> bool:
    """Whether one name contains the other, as ``tf_efficientnet_b0`` does ``efficientnet_b0``."""
    short, long = sorted((name.removeprefix("timm/"), other.removeprefix("timm/")), key=len)
    return short in long


def _alike(name: str, wanted: str) -> float:
    return SequenceMatcher(None, name, wanted.removeprefix("timm/")).ratio()
