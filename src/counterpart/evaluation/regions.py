"""Regions: the pixels of each image that an attacker may move, from maps or annotation, and random ones like them.

Only a region that is compared with random regions says anything of where a model is robust. A random region has exactly
as many pixels and the shape of a real one: it is another image's region, or that region shifted.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data.transforms import resize_maps
from ..importance.masks import random_order
from ..seeding import Keys

EVERYTHING, TOP, BOTTOM, OBJECT, BACKGROUND, PART, WINDOW = (
    "everything", "top", "bottom", "object", "background", "parts", "window",
)  # fmt: skip
OF_MAPS, OF_PARTS = (TOP, BOTTOM), (OBJECT, BACKGROUND, PART)
KINDS = (*OF_MAPS, *OF_PARTS, WINDOW)
"""The kinds of regions that can be asked for; ``EVERYTHING``, the plain attack, is always there."""
OTHER, SHIFTED = "other", "shifted"
CONTROLS = (OTHER, SHIFTED)


@dataclass(frozen=True)
class AttackRegion:
    """A region of some of the images.

    Attributes:
        name: such as "top 25%" or "car wheel".
        kind: ``EVERYTHING``, or one of ``KINDS``.
        positions: (M,) the places of the images that have the region, rising.
        mask: (M, 1, H, W) which pixels may move.
        share: the share of the pixels that was asked for; None where the annotation decides.
        control: one of ``CONTROLS`` for a random region of the same area; "" for the region itself.
        draw: the number of the random region, from 0.
    """

    name: str
    kind: str
    positions: Int[Tensor, " m"]
    mask: Bool[Tensor, "m 1 h w"]
    share: float | None = None
    control: str = ""
    draw: int = 0

    @property
    def folder(self) -> str:
        """The name of its ledger, such as "top 25%" or "top 25% other 0"."""
        name = f"part {self.name}" if self.kind == PART else self.name
        return f"{name} {self.control} {self.draw}" if self.control else name


@dataclass(frozen=True)
class RegionSource:
    """What regions are drawn from.

    Attributes:
        ranking: (N, H W) the pixels of each image, the highest of its map first; None without maps.
        parts: (N, H, W) the part ids of each image, 0 for background; None without annotation.
        there: (N,) whether an image is annotated.
        part_names: the names of the parts, the background first.
        size: H, W.
        keys: of the N images.
    """

    ranking: Int[Tensor, "n p"] | None
    parts: Int[Tensor, "n h w"] | None
    there: Bool[Tensor, " n"] | None
    part_names: Sequence[str]
    size: tuple[int, int]
    keys: Keys


def draw_regions(
    source: RegionSource, kinds: Sequence[str], shares: Sequence[float], draws: int
) -> Iterator[AttackRegion]:
    """Everything, and then each region, followed by its random regions. One mask is in memory at a time.

    Args:
        source: what regions are drawn from; it has what ``kinds`` need.
        kinds: some of ``KINDS``.
        shares: the shares of the pixels of regions from maps and of windows, in (0, 1).
        draws: how many random regions of each control; 0 for none.
    """
    height, width = source.size
    whole = torch.ones(len(source.keys), 1, height, width, dtype=torch.bool)
    yield AttackRegion(EVERYTHING, EVERYTHING, torch.arange(len(whole)), whole, 1.0)
    for kind in kinds:
        for region in _of_kind(source, kind, shares):
            yield region
            yield from _controls(source, region, draws)


def images_to_judge(source: RegionSource, kinds: Sequence[str], shares: Sequence[float], draws: int) -> int:
    """The number of images of all regions together that ``draw_regions`` makes."""
    total = len(source.keys)
    for kind in kinds:
        random_regions = draws * (1 if kind == WINDOW else len(CONTROLS))
        for region in _of_kind(source, kind, shares):
            images = len(region.positions)
            total += images * (1 + random_regions) if images > 1 else images
    return total


def _of_kind(source: RegionSource, kind: str, shares: Sequence[float]) -> Iterator[AttackRegion]:
    everyone = torch.arange(len(source.keys))
    if kind in OF_MAPS:
        assert source.ranking is not None
        for share in shares:
            mask = extreme_pixels(source.ranking, share, source.size, lowest=kind == BOTTOM)
            yield AttackRegion(f"{kind} {percent(share)}", kind, everyone, mask, share)
    elif kind == WINDOW:
        for share in shares:
            mask = centre_window(source.size, share).expand(len(everyone), -1, -1, -1)
            yield AttackRegion(f"{kind} {percent(share)}", kind, everyone, mask, share)
    else:
        assert source.parts is not None
        assert source.there is not None
        for name, planes in _annotated(source.parts, source.part_names, kind):
            positions = (source.there & planes.flatten(1).any(dim=1)).nonzero()[:, 0]
            if len(positions):
                yield AttackRegion(name, kind, positions, planes[positions, None])


def _annotated(parts: Tensor, names: Sequence[str], kind: str) -> Iterator[tuple[str, Tensor]]:
    """The names and the planes (N, H, W) of the regions of a kind."""
    if kind == OBJECT:
        yield kind, parts > 0
    elif kind == BACKGROUND:
        yield kind, parts == 0
    else:
        for number in range(1, len(names)):
            yield names[number], parts == number


def _controls(source: RegionSource, region: AttackRegion, draws: int) -> Iterator[AttackRegion]:
    """The random regions of a region; none where fewer than two images have it.

    A draw takes the same other image and the same shift for every region, so that those of rising shares are nested.
    """
    if len(region.positions) < 2:
        return
    keys = source.keys[region.positions]
    for draw in range(draws):
        others = region.mask
        if region.kind != WINDOW:  # which is the same in every image
            drawn = keys.fold(OTHER, draw)
            others = region.mask[derangement(drawn)]
            if region.kind in OF_PARTS:
                others = with_area(others, region.mask.flatten(1).sum(dim=1), drawn)
            yield replace(region, mask=others, control=OTHER, draw=draw)
        moved = shifted(others, keys.fold(SHIFTED, draw))
        yield replace(region, mask=moved, control=SHIFTED, draw=draw)


def percent(share: float) -> str:
    """A share as people write it: 25%."""
    return f"{100 * share:.10g}%"


def rank_pixels(
    maps: Float[Tensor, "b u v"], size: tuple[int, int], keys: Keys
) -> tuple[Int[Tensor, "b p"], Bool[Tensor, " b"]]:
    """The pixels of each image, the highest of its map first, and which maps are flat.

    Maps are resized to the images' size. Among pixels of equal height ``keys`` draw at random: so a map that is flat,
    or not finite, ranks its pixels at random.
    """
    planes = resize_maps(maps, size).flatten(1)
    flat = ~planes.isfinite().all(dim=1) | (planes.amax(dim=1) == planes.amin(dim=1))
    planes = planes.masked_fill(flat[:, None], 0.0)
    return _highest_first(planes, keys), flat


def _highest_first(heights: Float[Tensor, "b p"], keys: Keys) -> Int[Tensor, "b p"]:
    """The pixels of each image, the highest first; those of equal height in a random order."""
    shuffle = random_order(keys.fold("ties"), heights.shape[1])
    order = heights.gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    return shuffle.gather(1, order)


def extreme_pixels(
    ranking: Int[Tensor, "b p"], share: float, size: tuple[int, int], *, lowest: bool = False
) -> Bool[Tensor, "b 1 h w"]:
    """The highest share of the pixels, or the lowest: exactly as many in every image, at least one.

    Highest and lowest halves share no pixel, and regions of rising shares are nested.
    """
    pixels = ranking.shape[1]
    count = max(1, round(share * pixels))
    chosen = ranking[:, pixels - count :] if lowest else ranking[:, :count]
    mask = torch.zeros(ranking.shape, dtype=torch.bool).scatter(1, chosen, value=True)
    return mask.view(-1, 1, *size)


def centre_window(size: tuple[int, int], share: float) -> Bool[Tensor, "1 1 h w"]:
    """The square window in the centre whose area is nearest to a share of the pixels."""
    height, width = size
    side = max(1, round(math.sqrt(share * height * width)))
    tall, wide = min(side, height), min(side, width)
    top, start = (height - tall) // 2, (width - wide) // 2
    mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
    mask[..., top : top + tall, start : start + wide] = True
    return mask


def derangement(keys: Keys) -> Int[Tensor, " b"]:
    """Another image for each image, every image once: a random cycle through all of them."""
    order = keys.bits(0, (1,))[:, 0].argsort(stable=True)
    others = torch.empty_like(order)
    others[order] = order.roll(-1)
    return others


def with_area(
    masks: Bool[Tensor, "b 1 h w"], areas: Int[Tensor, " b"], keys: Keys
) -> Bool[Tensor, "b 1 h w"]:
    """Each region grown or shrunk to exactly a number of pixels, those deepest in it or nearest to it.

    Pixels are ranked by their signed Euclidean distance to the region's edge; among equal ones ``keys`` draw.
    """
    from scipy.ndimage import distance_transform_edt  # scipy takes long to import

    depths = []
    for mask in masks[:, 0].numpy():
        # around a region that covers the whole image, its edge is the image's
        around = int(mask.all())
        inside = distance_transform_edt(np.pad(mask, around))
        inside = inside[around : len(inside) - around, around : inside.shape[1] - around]
        depths.append(torch.from_numpy(inside - distance_transform_edt(~mask)))
    ranking = _highest_first(torch.stack(depths).flatten(1), keys)
    among = torch.arange(ranking.shape[1])[None] < areas[:, None]
    return torch.zeros_like(among).scatter(1, ranking, among).view_as(masks)


def shifted(masks: Bool[Tensor, "b 1 h w"], keys: Keys) -> Bool[Tensor, "b 1 h w"]:
    """Each region moved by a random offset; what leaves the image enters it on the opposite side."""
    height, width = masks.shape[2:]
    down, right = keys.integers(0, height), keys.integers(1, width)
    rows = (torch.arange(height)[None] - down[:, None]) % height
    columns = (torch.arange(width)[None] - right[:, None]) % width
    image = torch.arange(len(masks))[:, None, None]
    return masks[:, 0][image, rows[:, :, None], columns[:, None, :]].unsqueeze(1)
