"""Files that records of a run name: whether they lie in its folder, are what was recorded, and can be read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..parsing.limits import refuse_more
from ..pictures import Pictures
from ..records import Record, file_hash
from ..rundir import lies_within
from .usable import read_png, read_standing


@dataclass(frozen=True)
class Artifact:
    """A file that a record names.

    Attributes:
        record: the record.
        file: where the file should be.
        problem: why it cannot be trusted, or None.
        size: how many bytes of it were hashed.
    """

    record: Record
    file: Path
    problem: str | None
    size: int = 0

    @classmethod
    def check(cls, folder: Path, record: Record, hashed: int = 0) -> "Artifact":
        """Compare the file with the hash in its record, if it lies in the folder and is not too large for that.

        Args:
            folder: the run folder.
            record: the record.
            hashed: how many bytes of the folder's other files were hashed before.
        """
        name = str(record.details.get("file"))
        file = folder / name
        size = 0
        if not lies_within(folder, file):
            return cls(
                record, folder, f"{name:.200} lies outside of the run folder, so that it was not opened"
            )
        if not file.is_file():
            return cls(record, file, f"{file} is missing")
        try:
            refuse_more("SHOWN", hashed + file.stat().st_size, "bytes to hash")
            size = file.stat().st_size
            if file_hash(file) != record.details.get("sha256"):
                return cls(record, file, f"{file} has changed since it was recorded (its hash differs)", size)
            _READERS.get(record.name, _pass_over)(file)
        except (OSError, ValueError, UserError) as error:
            reason = getattr(error, "strerror", None) or error
            return cls(record, file, f"{file} was not used: {reason}", size)
        return cls(record, file, None, size)


def _pass_over(file: Path) -> None:
    """The page shows nothing of this file but its name."""


_READERS: Mapping[str, Callable[[Path], object]] = {
    "images": read_standing, "panel": Pictures.read, "where regions": read_png,
}  # fmt: skip
