"""Part annotation of an image set: which pixels belong to which part, in memory or read on demand."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer
from PIL import Image
from torch import Tensor

from ..errors import UserError
from .cropping import Region
from .decoding import WORKERS, fit, header_size
from .opening import open_image

PartNames: TypeAlias = Mapping[str, Mapping[str, int]]
"""{class: {part: id}}: ids run from 1 to P over all classes; 0 is background."""

MOST = 2**15 - 1  # part ids are kept in at most 16 bits


@dataclass(frozen=True)
class Parts:
    """The part annotation of N images.

    Attributes:
        names: {class: {part: id}}, ids 1 .. P.
        stored: the largest id in the files; other than P where masks are converted.
        there: (N,) whether an image is annotated. The mask of one that is not is all background.
        masks: (N, H, W) part ids, uint8 or int16; or None where they are read on demand.
        files: mask of each image, None for an image without one.
        convert: (B, H, W) -> (B, H, W), what is done to masks as they are read (see ``labels``).
        staying: the parts of each class that stayed, where others became background; None where all did.
    """

    names: PartNames
    stored: int
    there: Bool[Tensor, " n"]
    masks: Integer[Tensor, "n h w"] | None = None
    files: tuple[Path | None, ...] | None = None
    convert: Callable[[Tensor], Tensor] | None = None
    staying: Mapping[str, Sequence[str]] | None = None

    @property
    def count(self) -> int:
        """P, the largest part id."""
        return largest(self.names)

    def subset(self, positions: Int[Tensor, " b"]) -> "Parts":
        """The annotation of the images at some positions."""
        return replace(
            self,
            there=self.there[positions],
            masks=None if self.masks is None else self.masks[positions],
            files=None if self.files is None else tuple(self.files[i] for i in positions.tolist()),
        )

    def to(self, device: torch.device | str) -> "Parts":
        """The annotation with its tensors on a device."""
        masks = None if self.masks is None else self.masks.to(device)
        return replace(self, there=self.there.to(device), masks=masks)


def largest(names: PartNames) -> int:
    """The largest part id; 0 where no class has parts."""
    return max((number for parts in names.values() for number in parts.values()), default=0)


def part_names(names: PartNames) -> list[str]:
    """The name of each part, such as "car wheel", the background first; "wheel" alone if all classes have the part."""
    owners: dict[int, dict[str, str]] = {}
    for owner, parts in names.items():
        for part, number in parts.items():
            owners.setdefault(number, {})[owner] = part
    called = ["background"]
    for number in range(1, largest(names) + 1):
        names_by_class = owners.get(number, {})
        part = next(iter(names_by_class.values()), f"part {number}")
        alone = len(names_by_class) in (0, len(names)) or list(names_by_class) == [part]
        called.append(part if alone else f"{', '.join(names_by_class)} {part}")
    return called


def decode_masks(
    files: Sequence[Path | None],
    images: Sequence[Path],
    shape: tuple[int, int],
    count: int,
    boxes: Sequence[Region | None] | None = None,
) -> Integer[Tensor, "n h w"]:
    """Decode mask files, or a region of each, in several threads, fitted to one shape (H, W) like their images.

    A file of None is all background.
    """
    masks = torch.zeros((len(files), *shape), dtype=torch.uint8 if count < 256 else torch.int16)
    size = shape[0] if shape[0] == shape[1] else None

    def put(position: int) -> None:
        path = files[position]
        if path is None:
            return
        mask = decode_mask(path, images[position], size, count, None if boxes is None else boxes[position])
        if mask.shape != masks.shape[1:]:
            raise UserError(
                f"{path} is {mask.shape[1]} x {mask.shape[0]} and not {shape[1]} x {shape[0]}: "
                "it was changed since the data set was opened."
            )
        masks[position] = mask

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(put, range(len(files))))
    return masks


def decode_mask(
    path: Path, image: Path, size: int | None = None, count: int = MOST, box: Region | None = None
) -> Integer[Tensor, "h w"]:
    """Decode a mask file as part ids.

    Args:
        path: a file with one channel of 1, 8 or 16 bits; of a palette image the indices are the ids.
        image: the image that it belongs to, which must have the same size.
        size: fit it like the image: the shorter side to this many pixels, then the centre square; nearest neighbour.
        count: P; larger ids mean nothing.
        box: take this region of the file alone.

    Raises:
        UserError: if a file is damaged, has colours, another size than the image, or ids that mean nothing.
    """
    image_height, image_width = header_size(image)
    expected = (image_width, image_height)
    ids = mask_ids(path)
    height, width = ids.shape
    if (width, height) != expected:
        raise UserError(
            f"The mask {path} is {width} x {height} and its image {image} is {expected[0]} x {expected[1]}: "
            "masks need the size of their image."
        )
    if ids.max(initial=0) > count:
        unknown = ", ".join(map(str, np.unique(ids[ids > count])[:5].tolist()))
        raise UserError(
            f"The mask {path} holds {unknown}, and parts.json has part ids 1 to {count}: "
            "add the part or mend the mask."
        )
    if box is not None:
        x, y, end_column, end_row = box
        ids = ids[y:end_row, x:end_column]
    if size is not None:
        # Pillow resamples 16-bit images in 32 bits alone
        wide = Image.fromarray(ids if ids.dtype == np.uint8 else ids.astype(np.int32))
        ids = np.asarray(fit(wide, size, Image.Resampling.NEAREST))
    return torch.from_numpy(ids.astype(np.uint8 if count < 256 else np.int16))


def mask_ids(path: Path) -> np.ndarray:
    """The numbers (H, W) of a mask file, uint8 or int32, whatever they mean.

    Raises:
        UserError: if the file is damaged or has several channels.
    """
    try:
        with open_image(path) as mask:
            if mask.mode not in ("1", "L", "P", "I") and not mask.mode.startswith("I;16"):
                raise UserError(
                    f"The mask {path} has mode {mask.mode}: a mask has one channel, whose values are part ids."
                )
            ids = np.array(mask)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the mask {path}: {error}. Replace or remove it.") from None
    if ids.dtype in (np.bool_, np.uint8):
        return ids.astype(np.uint8)
    if ids.min(initial=0) < 0:
        raise UserError(f"The mask {path} holds negative numbers: part ids are 0 (background) and more.")
    return ids.astype(np.int32)
