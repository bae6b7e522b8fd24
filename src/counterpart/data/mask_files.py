"""A user's own masks: a grey PNG per image, found by the image's name, and from then on carried by its sample.

0 means ``eps_low`` and 255 ``eps``. An image ``train/cat/7.jpg`` of the data set has its mask in
``train/cat/7.png``; where a data set has no files, row 12 of its official training images in ``train/00012.png``.
A mask has the size of its image's file, and is then resized and cropped as the image is, or the size of the
network's input, and is then taken as it is.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from .. import distributed
from ..errors import UserError
from .decoding import WORKERS, fit, header_size
from .folder_layout import visible_files
from .image_sets import ImageSet, Splits, content_fingerprint
from .mapped import room_for
from .opening import open_image

IN_MEMORY = 2**32  # in bytes; more masks of a split go into a file that is mapped into memory
SHOWN = 3
_KINDS = {"P": "a palette image", "I": "a 16-bit image", "LA": "grey with transparency"}
_log = logging.getLogger(__name__)


def with_masks(splits: Splits, folder: Path, needed: str) -> Splits:
    """Give each sample of the splits its mask, where the folder has one.

    Args:
        splits: all that the data set has, so that no mask of a known image counts as unknown.
        folder: of the masks; hidden files are passed over.
        needed: the split that is to be used; how many of its images have no mask is said in the log.

    Raises:
        UserError: there is no mask for the needed split, a file belongs to no image, a mask is no 8-bit grey PNG or
            has another size than its image, or two images would share one.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"mask.files: {folder} is {'no folder' if folder.exists() else 'missing'}.")
    mask_files = {path.relative_to(folder).as_posix(): path for path in visible_files(folder)}
    owners: dict[str, str] = {}
    for images in (splits.train, splits.validation, splits.test):
        for name in _names(images):
            mask = mask_name(name)
            if mask in mask_files and mask in owners:
                raise UserError(
                    f"{mask_files[mask]} would be the mask of {owners[mask]} and of {name}: rename one of them."
                )
            owners[mask] = name
    example = mask_name(next(iter(_names(getattr(splits, needed))), "train/00000"))
    if unknown := sorted(mask_files.keys() - owners.keys()):
        raise UserError(
            f"{folder}: no image belongs to {len(unknown)} of the {len(mask_files)} files there ({_some(unknown)}). "
            f"A mask is named as its image is, such as {example}: rename or remove them."
        )
    masked_splits = splits.each(lambda images: _masked(images, mask_files))
    images = getattr(masked_splits, needed)
    bare = [name for name in _names(images) if mask_name(name) not in mask_files]
    if len(bare) == len(images):
        raise UserError(f"{folder} has no mask for any {needed} image: expected files such as {example}.")
    if bare and distributed.is_main():
        _log.warning(
            "%s: %d of %d %s images have no mask (%s): they get the full radius everywhere.",
            folder, len(bare), len(images), needed, _some(bare),
        )  # fmt: skip
    return masked_splits


def masks_of(images: ImageSet, folder: Path) -> Float[Tensor, "n h w"]:
    """Read the mask of every image of a set, as shares in [0, 1]. Files of other images are passed over.

    Raises:
        UserError: the folder is missing, an image has no mask, or a mask is not as ``decode_mask`` wants it.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"masks: {folder} is {'no folder' if folder.exists() else 'missing'}.")
    mask_files = {path.relative_to(folder).as_posix(): path for path in visible_files(folder)}
    bare = [name for name in map(mask_name, _names(images)) if name not in mask_files]
    if bare:
        raise UserError(f"{folder} has no mask for {len(bare)} of the {len(images)} images ({_some(bare)}).")
    masked = _masked(images, mask_files).read_masks(torch.arange(len(images)))
    assert masked is not None
    return masked.cpu()


def mask_name(name: str) -> str:
    """The mask of a sample: ``train/cat/7.jpg`` -> ``train/cat/7.png``."""
    return PurePosixPath(name).with_suffix(".png").as_posix()


def masks_fingerprint(images: ImageSet) -> str | None:
    """A hash of 12 hex digits of a set's masks and of which sample has which; None for a set without masks."""
    if images.masks is None or images.mask_rows is None:
        return None
    return content_fingerprint([images.masks.cpu(), images.mask_rows.cpu()])


def decode_mask(path: Path, images: ImageSet, image: Path | None) -> UInt8[Tensor, "h w"]:
    """Decode a mask at the size of a set's images.

    Args:
        path: the mask.
        images: the set.
        image: the file that the mask belongs to, if the set has files.

    Raises:
        UserError: if the file is damaged, no 8-bit grey PNG, or has another size than its image.
    """
    height, width = images.shape[1:]
    try:
        with open_image(path) as opened:
            if opened.format != "PNG" or opened.mode not in ("L", "1"):
                kind = _KINDS.get(opened.mode.partition(";")[0], f"a colour image ({opened.mode})")
                kind = kind if opened.format == "PNG" else f"a {opened.format} file"
                raise UserError(
                    f"{path} is {kind}: a mask is an 8-bit grey PNG, 0 for eps_low and 255 for eps. Convert it."
                )
            mask = opened.convert("L")
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the mask {path}: {error}. Replace or remove it.") from None
    if mask.size != (width, height):
        sizes = {(width, height)}
        if image is not None:
            original = header_size(image)
            sizes.add((original[1], original[0]))
        if mask.size not in sizes:
            wanted = " or ".join(f"{w} x {h}" for w, h in sorted(sizes))
            raise UserError(f"{path} is {mask.width} x {mask.height}: its image needs {wanted}. Resize it.")
        if images.prepare is not None:
            return images.prepare(mask.convert("RGB"))[0]
        mask = fit(mask, width)
    return torch.from_numpy(np.array(mask))


def _masked(images: ImageSet, mask_files: dict[str, Path]) -> ImageSet:
    masked = [
        (row, mask_files[name])
        for row, name in enumerate(map(mask_name, _names(images)))
        if name in mask_files
    ]
    height, width = images.shape[1:]
    planes = room_for((len(masked), height, width), torch.uint8, most=IN_MEMORY)
    rows = torch.full((len(images),), -1)
    rows[[position for position, _ in masked]] = torch.arange(len(masked))

    def put(row: int) -> None:
        position, path = masked[row]
        planes[row] = decode_mask(path, images, None if images.files is None else images.files[position])

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(put, range(len(masked))))
    return replace(images, masks=planes, mask_rows=rows)


def _names(images: ImageSet) -> tuple[str, ...]:
    if images.names is None:
        raise ValueError(f"The images of {images.name} have no names to find masks by.")
    return images.names


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
