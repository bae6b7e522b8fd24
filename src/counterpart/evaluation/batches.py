"""Images of a data set as a batch that an attack can meet."""

from dataclasses import replace

import torch
from torch import Tensor

from ..batch import Batch
from ..data.image_sets import ImageSet
from ..data.transforms import as_floats


def read_batch(
    images: ImageSet, positions: Tensor, device: torch.device, *, with_parts: bool = False
) -> Batch:
    """The images at some positions as a batch that an attack can meet.

    ``with_parts`` adds the part ids of those images that are annotated.
    """
    chosen = images.subset(positions)
    everything = torch.arange(len(chosen))
    pixels = as_floats(chosen.read(everything).to(device))
    users_masks = images.read_masks(positions)
    importance = None if users_masks is None else users_masks.to(device)
    batch = Batch(pixels, chosen.labels.to(device), chosen.index.to(device), importance=importance)
    if chosen.parts is None or not with_parts:
        return batch
    parts, there = chosen.read_parts(everything).to(device), chosen.parts.there.to(device)
    return replace(batch, parts=parts, has_parts=there)
