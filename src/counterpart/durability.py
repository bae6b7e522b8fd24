"""What outlasts a loss of power: contents and names that were flushed to the disk.

A file that was flushed may still lack its name: that belongs to its folder, which is flushed by itself.
"""

import errno
import os
from pathlib import Path

# What file systems say where folders are not flushed.
NOT_FLUSHED = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.EACCES)


def flush_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: files that were made, renamed or removed there.

    Nothing happens where the file system has no such thing, or the folder may be written but not read.

    Raises:
        OSError: the disk is full or damaged.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_FLUSHED:
            raise
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> list[Path]:
    """Make a folder that outlasts a loss of power, and those around it that are missing.

    Returns:
        The folders that were missing, the outermost first.

    Raises:
        OSError: it cannot be made.
    """
    missing: list[Path] = []
    for candidate in (folder, *folder.parents):
        if candidate.exists():
            break
        missing.insert(0, candidate)
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        flush_names(made.parent)
    return missing
