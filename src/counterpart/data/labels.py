"""Cheaper part labels, made of masks: boxes, centroids, objects, foreground, and fewer of them.

Source: Sitawarin et al. 2023, "Part-Based Models Improve Adversarial Robustness", section 5.4, appendices D.4 and D.5.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Integer
from torch import Tensor

from .image_sets import SPLIT_SEED, ImageSet, stratified
from .parts import PartNames

KINDS = ("parts", "boxes", "centroids", "objects", "foreground")
FOREGROUND = "object"


def relabelled(images: ImageSet, kind: str) -> ImageSet:
    """Replace part masks by part labels of a cheaper kind. Images without parts stay as they are.

    Labels are made of the masks at the size of the data set, before any augmentation: a box or a point that a person
    drew is cropped with the image, and is not drawn again around what a crop leaves. Differs from the published
    code, which takes the centroids of what the crop leaves.

    Args:
        images: annotated with part masks.
        kind: one of ``KINDS``.
    """
    parts = images.parts
    if parts is None or kind == "parts":
        return images
    if parts.convert is not None:
        raise ValueError("These labels were made of the masks already.")
    names, convert = _conversion(parts.names, parts.count, kind)
    converted = replace(parts, names=names, convert=convert)
    if parts.masks is not None:
        pieces = [convert(piece) for piece in torch.split(parts.masks, 256)]
        converted = replace(converted, masks=torch.cat(pieces) if pieces else parts.masks)
    return replace(images, parts=converted)


def keep_labels(images: ImageSet, share: float) -> ImageSet:
    """Keep the part labels on a share of the images that have any, the same share in each class.

    The draw is the same in every run, and a smaller share is part of a larger one, but for rounding.

    Differs from Sitawarin et al. 2023, whose draw takes no heed of classes.
    """
    parts = images.parts
    if parts is None:
        raise ValueError(f"{images.name} has no parts.")
    annotated = parts.there.nonzero()[:, 0]
    if share == 1 or len(annotated) == 0:
        return images
    count = max(1, round(share * len(annotated)))
    drawn, _ = stratified(images.labels[annotated], count, SPLIT_SEED)
    there = torch.zeros_like(parts.there)
    there[annotated[drawn.to(annotated.device)]] = True
    masks = parts.masks
    if masks is not None:
        masks = masks * there.view(-1, 1, 1)
    return replace(images, parts=replace(parts, there=there, masks=masks))


def boxes(masks: Integer[Tensor, "b h w"], count: int) -> Integer[Tensor, "b h w"]:
    """The filled bounding box of each part. Where boxes overlap, the larger id wins.

    A part of several pieces, such as two wheels, has one box around them.

    Differs from the published preparations, where the annotation that comes later wins (or earlier, on Cityscapes).
    """
    n, height, width = masks.shape
    owner = _owners(masks, count)
    rows = torch.zeros(n * (count + 1), height, dtype=torch.bool, device=masks.device)
    columns = torch.zeros(n * (count + 1), width, dtype=torch.bool, device=masks.device)
    down, across = torch.arange(height, device=masks.device), torch.arange(width, device=masks.device)
    rows[owner, down[:, None].expand_as(masks)] = True
    columns[owner, across.expand_as(masks)] = True
    there = rows.any(dim=1).nonzero()[:, 0]
    ends = [
        end
        for hit in (rows[there].int(), columns[there].int())
        for end in (hit.argmax(dim=1), hit.shape[1] - hit.flip(1).argmax(dim=1))
    ]
    filled = torch.zeros_like(masks)
    for place, top, bottom, left, right in torch.stack([there, *ends], dim=1).tolist():
        image, part = divmod(place, count + 1)
        if part:
            filled[image, top:bottom, left:right] = part
    return filled


def centroids(masks: Integer[Tensor, "b h w"], count: int) -> Integer[Tensor, "b h w"]:
    """A single pixel for each part, at its centre of mass. Where two meet, the larger id wins."""
    n, height, width = masks.shape
    owner = _owners(masks, count).flatten()
    down, across = torch.arange(height, device=masks.device), torch.arange(width, device=masks.device)

    def total(values: Tensor) -> Tensor:
        sums = torch.zeros(n * (count + 1), dtype=torch.int64, device=masks.device)
        return sums.scatter_add(0, owner, values.expand(n, height, width).flatten())

    area = total(torch.ones_like(across))
    there = ((area > 0) & (torch.arange(len(area), device=masks.device) % (count + 1) > 0)).nonzero()[:, 0]
    area = area[there]
    # the centre is rounded to a pixel by integers, so that every device rounds alike
    row, column = ((2 * total(places)[there] + area) // (2 * area) for places in (down[:, None], across))
    marked = torch.zeros_like(masks)
    for place, y, x in torch.stack([there, row, column], dim=1).tolist():
        image, part = divmod(place, count + 1)
        marked[image, y, x] = part
    return marked


def _owners(masks: Tensor, count: int) -> Tensor:
    """Number the pairs of image and part id: the number of each pixel, (B, H, W)."""
    first = torch.arange(len(masks), device=masks.device) * (count + 1)
    return masks.long() + first.view(-1, 1, 1)


def _conversion(names: PartNames, count: int, kind: str) -> tuple[PartNames, Callable[[Tensor], Tensor]]:
    """The names of parts under a kind of labels, and the function that converts masks to it."""
    if kind == "boxes":
        return names, partial(boxes, count=count)
    if kind == "centroids":
        return names, partial(centroids, count=count)
    table = torch.zeros(count + 1, dtype=torch.int16 if len(names) > 255 else torch.uint8)
    relabelled: dict[str, dict[str, int]] = {}
    for k, (name, parts) in enumerate(names.items(), start=1):
        new = k if kind == "objects" else 1
        relabelled[name] = {name if kind == "objects" else FOREGROUND: new}
        for old in parts.values():
            table[old] = new
    return relabelled, partial(_looked_up, table=table)


def _looked_up(masks: Tensor, table: Tensor) -> Tensor:
    return table.to(masks.device)[masks.long()]
