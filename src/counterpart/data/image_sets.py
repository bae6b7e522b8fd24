"""Images with the identity of each: what every data set of the project is once it has been read."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from .. import distributed
from ..errors import UserError
from ..seeding import Keys
from .cropping import Region
from .decoding import Prepare, decode_all
from .parts import Parts, decode_masks
from .samples import Samples
from .transforms import as_floats

# Where a data set has no official split, ours is the same in every run, whatever the run's seed.
SPLIT_SEED = 0


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set.

    Attributes:
        name: the data set, such as "cifar10".
        split: "train", "validation" or "test".
        classes: name of each class.
        labels: (N,) int64 true classes.
        index: (N,) int64 row in the official split: a sample's identity, which no subset or order changes.
        fingerprint: 12 hex digits of the content, the same for all splits of a data set.
        shape: (C, H, W) of every image.
        pixels: (N, C, H, W) uint8, or floats in [0, 1] that a program gave, or None for a set too large for memory.
        files: where each image came from, for sets of image files; decoded on demand if ``pixels`` is None.
        prepare: how to resize and crop them, if not in the ordinary way.
        boxes: the region of each file that is the image; None in its place for the whole.
        parts: which pixels belong to which part, for sets that are annotated.
        names: what each sample is called within the data set, "train/cat/7.jpg" or "train/00012", so that files of
            the user's own can belong to it.
        masks: (K, H, W) the user's own masks (see ``mask_files``), one for some or all of the samples.
        mask_rows: (N,) which of them is each sample's; -1: none.
        samples: where images come from that a program's own data set gives on demand.
        workers: how many processes read images on demand ahead of training, 0: none; None leaves it to ``batches``.
        alter: (images (B, C, H, W), their index (B,)) -> what stands in their place (see ``shifts``).
    """

    name: str
    split: str
    classes: tuple[str, ...]
    labels: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    fingerprint: str
    shape: tuple[int, int, int]
    pixels: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"] | None = None
    files: tuple[Path, ...] | None = None
    prepare: Prepare | None = None
    boxes: tuple[Region | None, ...] | None = None
    parts: Parts | None = None
    names: tuple[str, ...] | None = None
    masks: UInt8[Tensor, "k h w"] | None = None
    mask_rows: Int[Tensor, " n"] | None = None
    alter: Callable[[Tensor, Tensor], Tensor] | None = None
    samples: Samples | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.pixels is None and self.files is None and self.samples is None:
            raise ValueError("An ImageSet needs pixels, files or samples.")

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, positions: Int[Tensor, " b"]) -> UInt8[Tensor, "b c h w"] | Float[Tensor, "b c h w"]:
        """Read the images at some positions, on the device of ``pixels``, or on the CPU where files are decoded."""
        if self.pixels is not None:
            images = self.pixels[positions.to(self.pixels.device)]
        elif self.samples is not None:
            images = self.samples.read(positions, self.shape)
        else:
            assert self.files is not None
            chosen = positions.tolist()
            boxes = None if self.boxes is None else [self.boxes[i] for i in chosen]
            images = decode_all([self.files[i] for i in chosen], self.shape, self.prepare, boxes)
        return (
            images if self.alter is None else self.alter(images, self.index[positions.to(self.index.device)])
        )

    def read_parts(self, positions: Int[Tensor, " b"]) -> Int[Tensor, "b h w"]:
        """Read the part ids at some positions, int64 with 0 for background, on the device of the masks or on the CPU.

        Images without annotation are all background.
        """
        parts = self.parts
        if parts is None:
            raise ValueError(f"{self.name} has no parts.")
        if parts.masks is not None:
            return parts.masks[positions.to(parts.masks.device)].long()
        assert parts.files is not None
        assert self.files is not None
        chosen = positions.tolist()
        masks = decode_masks(
            [parts.files[i] if parts.there[i] else None for i in chosen],
            [self.files[i] for i in chosen],
            (self.shape[1], self.shape[2]),
            parts.stored,
            None if self.boxes is None else [self.boxes[i] for i in chosen],
        )
        return (masks if parts.convert is None else parts.convert(masks)).long()

    def read_masks(self, positions: Int[Tensor, " b"]) -> Float[Tensor, "b h w"] | None:
        """Read the masks at some positions as shares in [0, 1].

        A sample without a mask gets NaN. A set without any masks gives None.
        """
        if self.masks is None or self.mask_rows is None:
            return None
        rows = self.mask_rows[positions.to(self.mask_rows.device)]
        if len(self.masks) == 0:
            return torch.full((len(rows), *self.shape[1:]), torch.nan, device=self.masks.device)
        return as_floats(self.masks[rows.clamp_min(0)]).masked_fill((rows < 0)[:, None, None], torch.nan)

    def subset(self, positions: Int[Tensor, " b"]) -> "ImageSet":
        """The samples at some positions, each with the index that it has here."""
        positions = positions.to(self.labels.device)
        return replace(
            self,
            labels=self.labels[positions],
            index=self.index[positions],
            pixels=None if self.pixels is None else self.pixels[positions],
            files=None if self.files is None else tuple(self.files[i] for i in positions.tolist()),
            samples=None if self.samples is None else self.samples.subset(positions),
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in positions.tolist()),
            parts=None if self.parts is None else self.parts.subset(positions),
            names=None if self.names is None else tuple(self.names[i] for i in positions.tolist()),
            mask_rows=None if self.mask_rows is None else self.mask_rows[positions.to(self.mask_rows.device)],
        )

    def annotated(self) -> "ImageSet":
        """The samples whose parts are annotated; none where the set has no parts."""
        there = torch.zeros(len(self)) if self.parts is None else self.parts.there
        return self.subset(there.nonzero()[:, 0])

    def to(self, device: torch.device | str) -> "ImageSet":
        """The set with its tensors on a device."""
        pixels = None if self.pixels is None else self.pixels.to(device)
        masks = None if self.masks is None else self.masks.to(device)
        rows = None if self.mask_rows is None else self.mask_rows.to(device)
        parts = None if self.parts is None else self.parts.to(device)
        labels, index = self.labels.to(device), self.index.to(device)
        return replace(
            self, labels=labels, index=index, pixels=pixels, parts=parts, masks=masks, mask_rows=rows
        )


@dataclass(frozen=True)
class Splits:
    """A data set: three splits that share no sample, and sentences on how they came about."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    notes: tuple[str, ...] = ()

    def each(self, change: Callable[[ImageSet], ImageSet]) -> "Splits":
        """The data set with a change made to every split."""
        return replace(
            self, train=change(self.train), validation=change(self.validation), test=change(self.test)
        )


def numbered(split: str, n: int) -> tuple[str, ...]:
    """The names of samples that come without files, such as "train/00012"."""
    return tuple(f"{split}/{row:05d}" for row in range(n))


def stratified(labels: Int[Tensor, " n"], count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` positions, from every class the same share to within one image.

    The draw is made of integer operations only and so is the same on every platform.

    Returns:
        The positions drawn and the rest, both int64 and ascending.
    """
    labels = labels.cpu()
    n = len(labels)
    if not 0 <= count <= n:
        raise ValueError(f"Cannot draw {count} of {n} images.")
    sizes = torch.bincount(labels)
    quotas = sizes * count // max(n, 1)
    nearest = (sizes * count % max(n, 1)).argsort(descending=True, stable=True)
    quotas[nearest[: count - int(quotas.sum())]] += 1

    shuffled = Keys(seed, "stratified", torch.arange(n)).bits(0, (1,))[:, 0].argsort(stable=True)
    grouped = shuffled[labels[shuffled].argsort(stable=True)]
    place_in_class = torch.arange(n) - (sizes.cumsum(0) - sizes)[labels[grouped]]
    drawn = place_in_class < quotas[labels[grouped]]
    return grouped[drawn].sort().values, grouped[~drawn].sort().values


def balanced_subset(images: ImageSet, n: int, seed: int) -> ImageSet:
    """Draw ``n`` images, from every class the same share to within one image, and leave them in their order.

    Raises:
        UserError: if the set has fewer images.
    """
    if not 1 <= n <= len(images):
        raise UserError(
            f"{n} images were asked of the {images.split} split of {images.name}, which has {len(images)}: "
            f"ask for 1 to {len(images)}, or leave the number out for all."
        )
    return images.subset(stratified(images.labels, n, seed)[0])


def provide(
    folder: Path, missing: Callable[[Path], list[str]], fetch: Callable[[Path], None] | None, otherwise: str
) -> None:
    """Make sure that a folder lacks nothing. The main process fetches what is missing, and the others wait for it.

    Raises:
        UserError: something is still missing; the message ends with ``otherwise``, which says what to do.
    """
    if fetch is not None:
        if distributed.is_main() and missing(folder):
            fetch(folder)
        distributed.barrier()
    if lacking := missing(folder):
        raise UserError(f"{folder / lacking[0]} is missing. {otherwise}")


def hold_out(images: ImageSet, share: float, split: str) -> tuple[ImageSet, ImageSet]:
    """Set a share of a set aside as another split, and return (the rest, the split).

    At least one image goes to either side, unless the share is 0. The draw is the same in every run.

    Raises:
        UserError: if there are not two images to share.
    """
    n = len(images)
    if share == 0:
        return images, replace(images.subset(torch.arange(0)), split=split)
    if n < 2:
        raise UserError(
            f"{images.name} has {n} training image{'s' * (n != 1)}: a {split} split needs one more."
        )
    count = min(max(1, round(share * n)), n - 1)
    held, rest = stratified(images.labels, count, SPLIT_SEED)
    return images.subset(rest), replace(images.subset(held), split=split)


def content_fingerprint(chunks: Iterable[bytes | Tensor]) -> str:
    """A hash of 12 hex digits, made of a sequence of bytes and CPU tensors."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk if isinstance(chunk, bytes) else np.ascontiguousarray(chunk.numpy()).data)
    return digest.hexdigest()[:12]
