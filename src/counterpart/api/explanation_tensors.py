"""What an explanation holds: maps, radii and attacked images as tensors, and how far the attack moved them."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..saliency.agreement import mask_overlap, rank_correlation
from ..saliency.pointing import pointing_hits


@dataclass(frozen=True, repr=False, eq=False)
class ExplanationTensors:
    """The tensors of an explanation.

    Attributes:
        maps: (B, h, w) how much each place counts for the class, at the map's own resolution. It is None for
            a mask rule that looks at no map.
        radius: (B, 1 or C, H, W) how far an attacker may move each pixel, in units of the images.
        flat: (B,) whether the map tells no pixel from another, so that the full radius holds everywhere.
        attacked: (B, C, H, W) the images that PGD makes within these radii, in [0, 1].
        labels: (B,) the classes that were explained.
        clean: (B, K) the model's probabilities for the clean images.
        fooled: (B, K) the model's probabilities for the attacked images.
        images: (B, C, H, W) the clean images, in [0, 1].
        attacked_maps: as ``maps``, of the attacked images and for the same classes.
        attacked_radius: as ``radius``, drawn on the attacked images.
        deletion: (B, S) the probability of the class while the pixels that the map puts first become the image's mean
            colour, from none of the pixels to all. None without a map.
        insertion: (B, S) the same while they come back into an image of that colour.
        parts: (B, H, W) the part that a part model sees at each pixel, 0 for background; None for other models.
        attacked_parts: the same of the attacked images.
        objects: (B, H, W) whether a pixel belongs to the object, by masks that were given; no pixel of an image that
            nobody annotated. None where no masks were given.
    """

    maps: Float[Tensor, "b u v"] | None
    radius: Float[Tensor, "b p h w"]
    flat: Tensor
    attacked: Float[Tensor, "b c h w"]
    labels: Int[Tensor, " b"]
    clean: Float[Tensor, "b k"]
    fooled: Float[Tensor, "b k"]
    images: Float[Tensor, "b c h w"]
    attacked_maps: Float[Tensor, "b u v"] | None
    attacked_radius: Float[Tensor, "b p h w"]
    deletion: Float[Tensor, "b s"] | None
    insertion: Float[Tensor, "b s"] | None
    parts: Int[Tensor, "b h w"] | None
    attacked_parts: Int[Tensor, "b h w"] | None
    objects: Bool[Tensor, "b h w"] | None

    @property
    def mask(self) -> Tensor:
        """(B, 1 or C, H, W): whether a pixel has the largest radius of its image."""
        return largest(self.radius)

    @property
    def attacked_mask(self) -> Tensor:
        """As ``mask``, of the attacked images."""
        return largest(self.attacked_radius)

    @property
    def perturbation(self) -> Tensor:
        """(B, C, H, W): what the attack added to each image."""
        return self.attacked - self.images

    @property
    def overlap(self) -> Tensor:
        """(B,): the intersection over union of the masks before and after the attack, 1 where it moved nothing."""
        return mask_overlap(self.mask, self.attacked_mask)

    @property
    def correlation(self) -> Tensor | None:
        """(B,): the rank correlation of the maps before and after the attack; None without a map."""
        if self.maps is None or self.attacked_maps is None:
            return None
        return rank_correlation(self.maps, self.attacked_maps)

    @property
    def pointing(self) -> Tensor | None:
        """(B,): 1 where the map points into the object, else 0; NaN without an object, None without maps or masks."""
        return _pointing(self.maps, self.objects)

    @property
    def attacked_pointing(self) -> Tensor | None:
        """As ``pointing``, of the attacked images: the objects are where they were."""
        return _pointing(self.attacked_maps, self.objects)

    @property
    def object_share(self) -> Tensor | None:
        """(B,): the share of the image that is the object, which a point at random would hit; NaN where it has none."""
        if self.objects is None:
            return None
        share = self.objects.flatten(1).float().mean(dim=1)
        return torch.where(share > 0, share, torch.nan)


def _pointing(maps: Tensor | None, objects: Tensor | None) -> Tensor | None:
    """1 for a hit, 0 for a miss, NaN where there is nothing to point at."""
    if maps is None or objects is None:
        return None
    hits, there = pointing_hits(maps, objects)
    return torch.where(there, hits.float(), torch.nan)


def largest(radius: Tensor) -> Tensor:
    """Whether each pixel has the largest radius of its image."""
    return radius >= radius.amax(dim=(1, 2, 3), keepdim=True)
