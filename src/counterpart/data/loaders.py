"""Batches of an image set: every sample once, in an order and with an augmentation that depend on the seed alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .. import distributed
from ..batch import Batch
from ..errors import UserError
from ..seeding import Keys
from .image_sets import ImageSet
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

    for positions, pixels, masks in _read(images, shares):
        index = images.index[positions].to(device)
        users_masks = images.read_masks(positions)
        importance = None if users_masks is None else users_masks.to(device)
        if maps is not None:
            stored = maps[index.to(maps.device)].to(device).float()  # may be stored in half precision
            importance = resize_maps(stored, (images.shape[1], images.shape[2]))
        batch = Batch(
            images=as_floats(pixels.to(device)),
            labels=images.labels[positions].to(device),
            index=index,
            parts=None if masks is None else masks.to(device),
            has_parts=None if images.parts is None else images.parts.there[positions].to(device),
            importance=importance,
        )
        yield batch if augmentation is None else augmentation(batch, Keys(seed, "augment", index).fold(epoch))


def _shares(order: Tensor, batch_size: int, first: int) -> Iterator[Tensor]:
    for start in range(first * batch_size, len(order), batch_size):
        whole = order[start : start + batch_size]
        yield whole[distributed.share(len(whole))]


def _read(images: ImageSet, shares: Iterator[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yield positions with their pixels and part ids. Files are decoded one batch ahead."""

    def both(positions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        masks = None if images.parts is None else images.read_parts(positions)
        return positions, images.read(positions), masks

    if images.pixels is not None:
        for positions in shares:
            yield both(positions)
        return
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for positions in shares:
            coming = ahead.submit(both, positions)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()
