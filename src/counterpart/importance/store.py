"""Stored maps, keyed by sample index, at their own resolution: 32 bytes an image for a 4 x 4 map.

Stored maps meet an image under another crop and flip than the one they were drawn from. They are moved along
with it, but coarse maps are only roughly equivariant (overlap of masks about .40 after crop and flip, against
.23 for another image's map), so stores under augmentation are for comparison; fresh maps are the method.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from ..batch import Batch
from ..contracts import View
from .rules import explain


def fill(
    view: View, batches: Iterable[Batch], length: int, map_class: str, kind: str = "grad-cam"
) -> Float[Tensor, "n u v"]:
    """Draw the maps of every sample of ``batches``, by a forward pass on each clean image.

    Args:
        view: the network as it is now.
        batches: un-augmented images.
        length: the rows of the store, one more than the largest data-set index.
        map_class: what maps explain: "true", "predicted" or "margin".
        kind: the kind of map, one of ``saliency.MAPS``.

    Returns:
        (length, h, w) float16, each map divided by its maximum; rows of absent samples are zero (flat).
    """
    store: Tensor | None = None
    for batch in batches:
        maps = explain(view.probe(batch.images), batch.labels, map_class, kind)
        peak = maps.amax(dim=(1, 2), keepdim=True)
        scaled = torch.where(peak > 0, maps / peak, 0.0)  # NaN compares false: stored as flat
        if store is None:
            store = torch.zeros(length, *maps.shape[1:], dtype=torch.float16, device=maps.device)
        store[batch.index] = scaled.half()
    assert store is not None, "no batches to draw maps from"
    return store
