"""Controls: what is done to a mask, so that a claim about *where* the budget lies can be read.

All are called as ``control(mask, keys, middle)``: the keys are for those that draw at random, and ``middle`` is the
share that ``inverse`` reflects at. None of them changes images that are ``flat`` in the mask: these have the full
radius everywhere, under any control.
"""

import torch

from ..seeding import Keys
from .masks import MIDDLE, Mask, random_order


def none(mask: Mask, keys: Keys | None = None, middle: float = MIDDLE) -> Mask:
    """The mask as it is."""
    return mask


def uniform(mask: Mask, keys: Keys | None = None, middle: float = MIDDLE) -> Mask:
    """Replace each image's plane by its own mean.

    A smaller budget raises clean accuracy by itself. Only what a mask gains over this control is due to where its
    budget lies.
    """
    mean = mask.share.mean(dim=(1, 2, 3), keepdim=True)
    return Mask(mean.expand_as(mask.share[:, :1]).contiguous(), mask.flat)


def shuffled(mask: Mask, keys: Keys | None = None, middle: float = MIDDLE) -> Mask:
    """Give each image the plane of the next image of the batch, and the last image that of the first.

    An epoch's order is shuffled, so the next image is another random one in every epoch, always the same for the
    same seed. Under several processes it is the next one of this process's share of the batch, so the planes
    depend on how many processes there are. Images with flat maps are stepped over; a single image keeps its plane.
    """
    others = (~mask.flat).nonzero()[:, 0]
    share = mask.share.clone()
    share[others] = mask.share[others.roll(-1)]
    return Mask(share, mask.flat)


def random(mask: Mask, keys: Keys, middle: float = MIDDLE) -> Mask:
    """Move each plane's values to random pixels, by one permutation for all channels that ``keys`` draw."""
    flattened = mask.share.flatten(2)
    order = random_order(keys.fold("random mask"), flattened.shape[2])
    moved = torch.gather(flattened, 2, order[:, None].expand_as(flattened))
    return Mask(moved.view_as(mask.share), mask.flat)


def inverse(mask: Mask, keys: Keys | None = None, middle: float = MIDDLE) -> Mask:
    """Reflect the shares at ``middle``, so that 0 becomes 1 and 1 becomes 0: important pixels get the smaller radius.

    This is the direction of SIP-AT. At ``middle`` 1, the mean of
    ``mean_preserving_mask``, the mean stays ``eps``: 7/255 and 11/255 become 9/255 and 5/255.
    """
    return Mask(2 * middle - mask.share, mask.flat)
