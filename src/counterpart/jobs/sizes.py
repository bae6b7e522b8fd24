"""How many images an evaluation meets at once and saves at once, where the user leaves that open.

On a CPU these are fixed numbers. On a GPU they follow its memory, because batches of a few hundred small images leave
most of it idle. An evaluation that goes on keeps the sizes that it began with, whatever the device has now.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from .. import devices, distributed
from ..config import EvaluateSettings
from ..data.image_sets import ImageSet
from ..evaluation.batches import read_batch
from ..models.random_passes import seeded_passes
from ..rundir import read_json


class Sizes(NamedTuple):
    """The number of images in a batch and in a chunk, under the names of their settings."""

    batch_size: int
    chunk_size: int


ON_A_CPU = Sizes(256, 500)
ON_A_GPU = Sizes(2048, 10_000)  # the most; fewer images to a batch where the memory is smaller
PROBE = 16  # images whose passes are measured to learn what one needs
CHUNKS_OF_A_PROCESS = 4  # of several at least, so that none waits long for the last
SHARE = 0.5  # of the free memory, so that what attacks keep beside the passes finds room


def settle_sizes(
    folder: Path | None,
    identity: Mapping[str, Any],
    wanted: EvaluateSettings,
    model: nn.Module,
    images: ImageSet,
    device: torch.device,
    *,
    entries: Sequence[str] = Sizes._fields,
) -> Sizes:
    """The sizes of an evaluation: those asked for, those of its earlier start, or those that suit the device.

    Args:
        folder: the folder that holds a folder for each evaluation of the run; None where nothing is kept.
        identity: everything else that decides the evaluation, except for the form of its view.
        wanted: the settings, whose sizes are None where they are left open.
        model: the network, on its device.
        images: the images that are evaluated.
        device: the device that computes.
        entries: the sizes that the identity of such an evaluation holds.

    Returns:
        The sizes, the same on every process.
    """
    asked = {"batch_size": wanted.batch_size, "chunk_size": wanted.chunk_size}
    open_sizes = [name for name, size in asked.items() if size is None]
    sizes = ON_A_CPU._replace(**{name: size for name, size in asked.items() if size is not None})
    if open_sizes and distributed.is_main():
        sought = {**identity, **{name: asked[name] for name in entries}}
        earlier = _earlier_sizes(folder, sought, [name for name in open_sizes if name in entries])
        chosen: dict[str, int] = earlier
        if any(name not in earlier for name in open_sizes):
            chosen = {**_suitable_sizes(model, images, device)._asdict(), **earlier}
        sizes = sizes._replace(**{name: chosen[name] for name in open_sizes})
    return distributed.gather(sizes)[0]


def _earlier_sizes(folder: Path | None, identity: Mapping[str, Any], open_sizes: list[str]) -> dict[str, int]:
    """The sizes of the first evaluation in a folder that differs from this one in nothing that was asked for."""
    if folder is None:
        return {}
    ours = _comparable(identity, open_sizes)
    for file in sorted(folder.glob("*/identity.json")):
        try:
            theirs = read_json(file)
        except ValueError:  # the ledger itself says what is wrong with it
            continue
        if isinstance(theirs, dict) and _comparable(theirs, open_sizes) == ours:
            sizes = {name: theirs[name] for name in open_sizes if isinstance(theirs.get(name), int)}
            if len(sizes) == len(open_sizes):
                return sizes
    return {}


def _comparable(identity: Mapping[str, Any], without: list[str]) -> dict[str, Any]:
    """An identity as its file tells it, without some entries and without the form of the view."""
    stored: dict[str, Any] = json.loads(json.dumps(dict(identity), default=str))
    return {name: value for name, value in stored.items() if name not in (*without, "view")}


def _suitable_sizes(model: nn.Module, images: ImageSet, device: torch.device) -> Sizes:
    """The sizes that suit a device: on a GPU as large as its memory allows."""
    if device.type != "cuda" or len(images) == 0:
        return ON_A_CPU
    need = _bytes_of_one_image(model, images, device)
    room = SHARE * devices.free_memory(device) / need
    batch_size = largest_power_of_two(min(room, ON_A_GPU.batch_size))
    processes = distributed.world_size()
    if processes == 1:
        return Sizes(batch_size, ON_A_GPU.chunk_size)
    fair = -(-len(images) // (CHUNKS_OF_A_PROCESS * processes))
    return Sizes(batch_size, min(ON_A_GPU.chunk_size, max(fair, 1)))


def _bytes_of_one_image(model: nn.Module, images: ImageSet, device: torch.device) -> float:
    """What a forward and a backward pass need of the device's memory for an image, measured on the first ones."""
    positions = torch.arange(len(images))[:PROBE]
    inputs = read_batch(images, positions, device).images.requires_grad_()

    def passes() -> None:
        with torch.enable_grad():
            total = model(inputs).float().square().sum()
            if total.requires_grad:  # an ONNX file, for one, has no gradients
                torch.autograd.grad(total, inputs)

    with seeded_passes(model, 0, device):  # what it draws is nobody else's
        return max(devices.memory_of(passes, device) / len(positions), 1.0)


def largest_power_of_two(most: float) -> int:
    """The largest power of two that is not above a number; 1 where that is below 1."""
    return 1 << max(int(most).bit_length() - 1, 0)
