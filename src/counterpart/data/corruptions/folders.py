"""The published corrupted validation images of ImageNet-C, read where they lie.

    DIR/gaussian_noise/1/n01440764/ILSVRC2012_val_00000293.JPEG

A folder per corruption, in it one per severity, and in each the validation images in folders of classes, 224 x 224.
Source: Hendrycks and Dietterich 2019.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Int, UInt8
from torch import Tensor

from ...errors import UserError
from ..decoding import decode_all
from ..image_sets import ImageSet
from ..resizing import prepared_as
from . import CORRUPTIONS

PREPARATION = "Res224"  # the published images have this size, and so stay as they are


@dataclass(frozen=True)
class CorruptedFolders:
    """A folder of official images.

    Attributes:
        folder: the folder that holds one for each corruption.
        places: the place of each image below a severity's folder, by its index in the data set.
    """

    folder: Path
    places: Mapping[int, str]

    def has(self, name: str) -> bool:
        """Whether the folder has one of a corruption."""
        return (self.folder / name).is_dir()

    def stamp(self, name: str) -> str:
        """A text that changes with the folders of a corruption, though not with what is in a file."""
        return ", ".join(
            f"{path.name} of {path.stat().st_mtime_ns}" for path in sorted((self.folder / name).iterdir())
        )

    def check_official(self, data: str, names: Iterable[str], severities: Iterable[int]) -> None:
        """Refuse folders that lack an image. Nothing published tells whether its content is the official one."""
        for name in names:
            for severity in severities:
                home = self.folder / name / str(severity)
                missing = [place for place in self.places.values() if not (home / place).is_file()]
                if missing:
                    raise UserError(
                        f"{home} lacks {len(missing):,} of the {len(self.places):,} images of {data}-c, such as "
                        f"{missing[0]}."
                    )

    def read(self, name: str, severity: int, index: Int[Tensor, " b"]) -> UInt8[Tensor, "b 3 s s"]:
        """Read corrupted validation images by their index in the data set.

        Raises:
            UserError: an image is missing or damaged.
        """
        side, prepare = prepared_as(PREPARATION)
        home = self.folder / name / str(severity)
        return decode_all([home / self.places[i] for i in index.tolist()], (3, side, side), prepare)


def open_folders(folder: Path, images: ImageSet) -> CorruptedFolders:
    """Open a folder of official images.

    Args:
        folder: the folder of ImageNet-C, whose archives were unpacked side by side.
        images: the validation images of ImageNet that are judged, with their files.

    Raises:
        UserError: there is no such folder, or it holds no corruption.
    """
    folder = Path(folder).expanduser()
    if not any((folder / name).is_dir() for name in CORRUPTIONS):
        raise UserError(
            f"{folder} holds no folder of a corruption, such as gaussian_noise: name the one that holds ImageNet-C."
        )
    labels = images.labels.tolist()
    files = images.files or ()
    places = {
        index: f"{images.classes[label]}/{path.stem}.JPEG"
        for index, label, path in zip(images.index.tolist(), labels, files, strict=True)
    }
    return CorruptedFolders(folder, places)
