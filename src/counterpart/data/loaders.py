"""Batches of an image set: every sample once, in an order and with an augmentation that depend on the seed alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import distributed
from ..batch import Batch
from ..errors import UserError
from ..seeding import Keys
from .image_sets import ImageSet
from .streaming import default_workers, stream
from .transforms import Augment, as_floats, resize_maps


def epoch_order(n: int, seed: int, epoch: int) -> Int[Tensor, " n"]:
    """A permutation of 0 .. n - 1 that depends on seed and epoch alone, so that a resumed epoch has the same order."""
    return Keys(seed, "order", torch.arange(n)).fold(epoch).bits(0, (1,))[:, 0].argsort(stable=True)


def batches(
    images: ImageSet,
    *,
    batch_size: int,
    device: torch.device,
    order: Int[Tensor, " m"] | None = None,
    augmentation: Augment | None = None,
    seed: int = 0,
    epoch: int = 0,
    maps: Float[Tensor, "k h w"] | None = None,
    first: int = 0,
) -> Iterator[Batch]:
    """Yield this process's share of every global batch, as floats in [0, 1] on the device.

    A last global batch with fewer images than there are processes leaves some of them an empty batch, so that
    all processes count the same steps.

    Where the set has masks that the user drew, they are the importance of its pixels, and augmented like the images.

    Args:
        images: the set; for speed, already on the device.
        batch_size: images per global batch, over all processes; the last one may be smaller.
        device: where the batches are needed.
        order: positions in the set; by default all of them in order.
        augmentation: moves images and maps by draws that depend on (seed, epoch, index).
        seed: the run's seed.
        epoch: counts from 0.
        maps: (K, h, w) stored importance addressed by sample index: sample i gets ``maps[i]``.
        first: global batches to skip without reading them, when an epoch is resumed.

    Raises:
        UserError: if there are no images.
    """
    if len(images) == 0:
        raise UserError(
            f"The {images.split} split of {images.name} is empty: add images, or use another split."
        )
    if maps is not None and int(images.index.max()) >= len(maps):
        raise ValueError(f"{len(maps)} maps for sample indices up to {int(images.index.max())}.")
    if order is None:
        order = torch.arange(len(images))
    shares = _shares(order.to(images.labels.device), batch_size, first)

    room = min(batch_size, len(order))
    for positions, pixels, masks in _read(images, shares, room, device.type == "cuda"):
        index = images.index[positions].to(device)
        users_masks = images.read_masks(positions)
        importance = None if users_masks is None else users_masks.to(device)
        if maps is not None:
            stored = maps[index.to(maps.device)].to(device).float()  # may be stored in half precision
            importance = resize_maps(stored, (images.shape[1], images.shape[2]))
        batch = Batch(
            images=as_floats(_moved(pixels, device, images.pixels is None)),
            labels=images.labels[positions].to(device),
            index=index,
            parts=None if masks is None else masks.to(device),
            has_parts=None if images.parts is None else images.parts.there[positions].to(device),
            importance=importance,
        )
        yield batch if augmentation is None else augmentation(batch, Keys(seed, "augment", index).fold(epoch))


def _moved(pixels: Tensor, device: torch.device, read_ahead: bool) -> Tensor:
    """Pixels on the device, and nowhere else: what was read ahead lies in a slot that will be written to again."""
    if read_ahead and device.type == "cuda":
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.clone() if read_ahead and pixels.is_floating_point() else pixels.to(device)


def _shares(order: Tensor, batch_size: int, first: int) -> Iterator[Tensor]:
    for start in range(first * batch_size, len(order), batch_size):
        whole = order[start : start + batch_size]
        yield whole[distributed.share(len(whole))]


def _read(
    images: ImageSet, shares: Iterator[Tensor], batch_size: int, on_cuda: bool
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield positions with their pixels and part ids. Images that are not in memory are read ahead."""
    if images.pixels is not None:
        for positions in shares:
            yield (
                positions,
                images.read(positions),
                None if images.parts is None else images.read_parts(positions),
            )
        return
    kind = torch.uint8 if images.samples is None else images.samples.dtype
    room: list[tuple[Sequence[int], torch.dtype]] = [((batch_size, *images.shape), kind)]
    if images.parts is not None:
        room.append(((batch_size, *images.shape[1:]), torch.int16))
    workers = images.workers
    if workers is None:
        # Files are decoded outside the interpreter lock, so that threads serve a processor as well.
        workers = default_workers() if on_cuda or images.samples is not None else 0
    for (positions, _), tensors in stream(_reader(images), _jobs(images, shares), room, workers):
        yield positions, tensors[0], tensors[1].long() if images.parts is not None else None


Job: TypeAlias = tuple[Tensor, ImageSet | None]
"""The positions of a batch, and what a worker needs of the set for it: paths, which are not looked up in the whole set,
because counting references to millions of them would copy the memory that a worker shares."""


def _jobs(images: ImageSet, shares: Iterator[Tensor]) -> Iterator[Job]:
    for positions in shares:
        if images.samples is not None:
            yield positions, None
            continue
        few = replace(images, masks=None, mask_rows=None, names=None).subset(positions)
        parts = None if few.parts is None else replace(few.parts, convert=None, names={})
        yield positions, replace(few, prepare=None, alter=None, parts=parts, classes=())


def _reader(images: ImageSet) -> Callable[[Job], Sequence[Tensor]]:
    """The function from a job to the pixels and the part ids of its batch."""
    prepare, alter, parts = images.prepare, images.alter, images.parts
    held = images if images.samples is not None else None

    def read(job: Job) -> Sequence[Tensor]:
        positions, few = job
        if few is None:
            assert held is not None
            return [held.read(positions)]
        here = torch.arange(len(positions))
        whole = replace(few, prepare=prepare, alter=alter)
        if few.parts is None or parts is None:
            return [whole.read(here)]
        whole = replace(whole, parts=replace(few.parts, convert=parts.convert))
        return [whole.read(here), whole.read_parts(here)]

    return read
