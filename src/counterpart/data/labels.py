"""Cheaper part labels, made of masks: boxes, centroids, objects, foreground, and fewer of them.

Source: Sitawarin et al. 2023, "Part-Based Models Improve Adversarial Robustness", section 5.4, appendices D.4 and D.5.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Integer
from torch import Tensor

from ..errors import UserError
from .image_sets import SPLIT_SEED, ImageSet, stratified
from .parts import PartNames, largest

KINDS = ("parts", "boxes", "centroids", "objects", "foreground")
FOREGROUND = "object"
AT_ONCE = 256  # masks


def relabelled(images: ImageSet, kind: str, staying: Mapping[str, Sequence[str]] | None = None) -> ImageSet:
    """Replace part masks by part labels of a cheaper kind, or of fewer parts. Images without parts stay as they are.

    Labels are made of the masks at the size of the data set, before any augmentation: a box or a point that a person
    drew is cropped with the image, and is not drawn again around what a crop leaves. Differs from the published
    code, which takes the centroids of what the crop leaves.

    Args:
        images: annotated with part masks.
        kind: one of ``KINDS``.
        staying: {class: its parts that stay}, numbered anew in their order; all others become background. The default
            is all parts.

    Raises:
        UserError: a part shall stay that the data set does not name.
    """
    parts = images.parts
    if parts is None or (kind == "parts" and staying is None):
        return images
    if parts.convert is not None:
        raise ValueError("These labels were made of the masks already.")
    names, conversions = parts.names, []
    if staying is not None:
        names, fewer = _fewer(names, staying, images.name)
        conversions.append(fewer)
    if kind != "parts":
        names, cheaper = _conversion(names, largest(names), kind)
        conversions.append(cheaper)
    convert = partial(_in_turn, conversions=conversions)
    converted = replace(parts, names=names, convert=convert, staying=staying)
    if parts.masks is not None:
        pieces = [convert(piece) for piece in torch.split(parts.masks, AT_ONCE)]
        converted = replace(converted, masks=torch.cat(pieces) if pieces else parts.masks)
    return replace(images, parts=converted)


def common_parts(images: ImageSet, least: float) -> dict[str, list[str]]:
    """The parts of each class that cover at least a share of the pixels of all parts of the class.

    Args:
        images: those that are learned from; only annotated ones count.
        least: the share, above 0.

    Raises:
        UserError: no part is as large.
    """
    assert images.parts is not None
    names, annotated = images.parts.names, images.annotated()
    pixels = torch.zeros(images.parts.count + 1, dtype=torch.int64)
    for positions in torch.split(torch.arange(len(annotated)), AT_ONCE):
        ids = annotated.read_parts(positions)
        pixels += torch.bincount(ids.flatten(), minlength=len(pixels)).cpu()
    staying = {}
    for name, parts in names.items():
        whole = sum(int(pixels[number]) for number in parts.values())
        staying[name] = [
            part for part, number in parts.items() if whole > 0 and int(pixels[number]) >= least * whole
        ]
    if not any(staying.values()):
        raise UserError(
            f"data.parts_min_share {least:g}: no part of {images.name} covers this share of the annotated pixels of "
            "its class. Use a smaller share."
        )
    return staying


def parts_that_stay(images: ImageSet) -> dict[str, list[str]] | None:
    """The parts of each class that stayed when others became background; None where all did."""
    if images.parts is None or images.parts.staying is None:
        return None
    return {name: list(parts) for name, parts in images.parts.staying.items()}


def say_what_stays(names: PartNames, staying: Mapping[str, Sequence[str]], least: float) -> str:
    """A sentence that counts the parts that stay, and names those that do not."""
    gone = {
        name: [part for part in parts if part not in staying.get(name, ())] for name, parts in names.items()
    }
    before, after = (sum(map(len, parts.values())) for parts in (names, gone))
    listed = "; ".join(f"{name} {', '.join(parts)}" for name, parts in gone.items() if parts)
    return (
        f"data.parts_min_share {least:g}: {before - after} of {before} parts stay. "
        f"{f'Background from here on: {listed}.' if listed else ''}"
    ).strip()


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


def _fewer(
    names: PartNames, staying: Mapping[str, Sequence[str]], data: str
) -> tuple[PartNames, Callable[[Tensor], Tensor]]:
    """The names of the parts that stay, numbered anew, and the function that converts masks to them."""
    wanted = [(name, part) for name, parts in staying.items() for part in parts]
    for name, part in wanted:
        if part not in names.get(name, {}):
            raise UserError(f"the model finds the part {part!r} of {name}, which {data} does not name.")
    wanted.sort(key=lambda pair: names[pair[0]][pair[1]])
    numbers = {pair: number for number, pair in enumerate(wanted, start=1)}
    table = torch.zeros(largest(names) + 1, dtype=torch.int16 if len(numbers) > 255 else torch.uint8)
    for (name, part), number in numbers.items():
        table[names[name][part]] = number
    renumbered = {
        name: {part: numbers[name, part] for part in parts if (name, part) in numbers}
        for name, parts in names.items()
    }
    return renumbered, partial(_looked_up, table=table)


def _in_turn(masks: Tensor, conversions: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
    for convert in conversions:
        masks = convert(masks)
    return masks


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
