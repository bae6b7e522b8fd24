"""Benchmarks made of part masks: the same objects before other backgrounds, or covered with other textures.

After Sitawarin et al. 2023, section 5.1, which takes the first from ImageNet-9 (Xiao et al. 2021, arXiv 2006.09994) and
the second from stylised ImageNet (Geirhos et al. 2019, arXiv 1811.12231). Here both are made of the evaluated images
themselves, without a download, and are no results on those data sets: see docs/evaluation.md.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..seeding import Keys
from .image_sets import SPLIT_SEED, ImageSet, content_fingerprint
from .transforms import as_floats

SHIFTS = ("none", "backgrounds", "textures")


def shifted(images: ImageSet, kind: str) -> ImageSet:
    """Change the annotated images of a set: each borrows a background or a surface from an image of another class.

    The lender is drawn by the image's index and is the same in every run, so that all models meet the same images.

    Args:
        images: with part masks.
        kind: one of ``SHIFTS``. "backgrounds": the object, cut out along its mask, before the background of the other
            image, whose own object is filled in from its surroundings. "textures": each part of the object covered
            with the other object's surface, as bright on average as the part was (by a factor of two at most).

    Raises:
        UserError: there are no masks, or masks of one class only.
    """
    if kind == "none":
        return images
    if images.parts is None:
        raise UserError(
            f"data.shift {kind} needs images with part masks, and {images.name} has none: use data.name parts or "
            "synthetic-parts."
        )
    annotated = images.annotated()
    if len(torch.unique(annotated.labels)) < 2:
        raise UserError(
            f"data.shift {kind} needs masks of two classes or more in the {images.split} split of {images.name}, "
            f"which has {len(annotated)} annotated images of {len(torch.unique(annotated.labels))}: add masks "
            "(counterpart data check counts them), or name another data.root."
        )
    partners = _partners(annotated.labels.cpu(), Keys(SPLIT_SEED, f"shift/{kind}", annotated.index.cpu()))
    place = {index: position for position, index in enumerate(annotated.index.tolist())}

    def alter(pixels: UInt8[Tensor, "b c h w"], index: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"]:
        rows_of_images = torch.tensor([place[i] for i in index.tolist()])
        rows_of_lenders = partners[rows_of_images]
        parts, lent_parts = (
            annotated.read_parts(rows).to(pixels.device) for rows in (rows_of_images, rows_of_lenders)
        )
        mine, lent = as_floats(pixels), as_floats(annotated.read(rows_of_lenders).to(pixels.device))
        if kind == "backgrounds":
            mixed = torch.where(parts[:, None] > 0, mine, filled(lent, lent_parts[:, None] > 0))
        else:
            keys = Keys(SPLIT_SEED, f"shift/{kind}", index.cpu())
            mixed = _covered(mine, parts, lent, lent_parts > 0, keys)
        return (255 * mixed).round().clamp(0, 255).byte()

    return replace(
        annotated,
        name=f"{images.name} with other {kind}",
        fingerprint=content_fingerprint([images.fingerprint.encode(), kind.encode()]),
        alter=alter,
    )


def _partners(labels: Int[Tensor, " n"], keys: Keys) -> Int[Tensor, " n"]:
    """The position of a lender for each image, drawn evenly from the images of other classes."""
    order = labels.argsort(stable=True)
    sizes = torch.bincount(labels)
    ends = sizes.cumsum(0)
    drawn = keys.integers(0, len(labels) - sizes[labels])
    # The draw counts the images of other classes, which lie before and behind those of the image's own class.
    return order[drawn + torch.where(drawn >= (ends - sizes)[labels], sizes[labels], 0)]


def filled(images: Float[Tensor, "b c h w"], hole: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h w"]:
    """Fill a hole smoothly from what surrounds it, by means of ever coarser grids (Gortler et al. 1996).

    An image that is all hole becomes grey.
    """
    if not hole.any():
        return images
    if images.shape[2] == images.shape[3] == 1:
        return torch.where(hole, 0.5, images)
    known = (~hole).float()
    window = [min(2, side) for side in images.shape[2:]]
    share, total = (F.avg_pool2d(x, window, ceil_mode=True) for x in (known, images * known))
    coarse = filled(total / share.clamp(min=1e-6), share == 0)
    smooth = F.interpolate(coarse, size=images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(hole, smooth, images)


def _covered(
    images: Float[Tensor, "b c h w"],
    parts: Integer[Tensor, "b h w"],
    lent: Float[Tensor, "b c h w"],
    lent_object: Bool[Tensor, "b h w"],
    keys: Keys,
) -> Float[Tensor, "b c h w"]:
    size = (images.shape[2], images.shape[3])
    surface = filled(lent, ~lent_object[:, None])
    surfaces = torch.cat(
        [_enlarged(lender, there, size) for lender, there in zip(surface, lent_object, strict=True)]
    )
    result = images.clone()
    for part in torch.unique(parts).tolist():
        inside = (parts == part)[:, None]
        if part == 0:
            continue
        down, across = (keys.integers(part, side, stream=axis).tolist() for axis, side in enumerate(size))
        moved = torch.stack(
            [lender.roll((y, x), dims=(1, 2)) for lender, y, x in zip(surfaces, down, across, strict=True)]
        )
        lit = (_brightness(images, inside) / _brightness(moved, inside).clamp(min=1e-3)).clamp(0.5, 2)
        result = torch.where(inside, (moved * lit).clamp(0, 1), result)
    return result


def _enlarged(
    surface: Float[Tensor, "c h w"], there: Bool[Tensor, "h w"], size: tuple[int, int]
) -> Float[Tensor, "1 c h w"]:
    """Cut out the box around an object, and enlarge it to the size of the image."""
    rows, columns = there.any(dim=1).nonzero()[:, 0], there.any(dim=0).nonzero()[:, 0]
    box = surface if len(rows) == 0 else surface[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return F.interpolate(box[None], size=size, mode="bilinear", align_corners=False)


def _brightness(
    images: Float[Tensor, "b c h w"], inside: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 1 1"]:
    """The mean over the pixels of a region, and over channels."""
    total = (images * inside).mean(dim=1, keepdim=True).sum(dim=(2, 3), keepdim=True)
    return total / inside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
