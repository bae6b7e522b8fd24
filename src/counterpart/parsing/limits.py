"""How much an input file may ask for: a few bytes must not cost all memory, or hours.

Each limit is far above what sound files need. ``COUNTERPART_MOST_<NAME>`` in the environment sets another, such as
``COUNTERPART_MOST_PIXELS=400e6``; every refusal names its own. docs/security.md says what each costs in memory.
"""

import os
import stat
from pathlib import Path

PREFIX = "COUNTERPART_MOST_"
LIMITS = {
    "PIXELS": 89_478_485,  # of one image; Pillow warns from here on. The largest of ImageNet has 61 million
    "TEXT": 2**26,  # bytes of a table, a list, records, or JSON of a run folder
    "ANNOTATIONS": 2**29,  # bytes of a JSON file of annotations; the largest of COCO's has 470 million
    "UNPACKED": 2**31,  # bytes of a packed or binary file of data, and of what it unpacks to
    "WEIGHTS": 2**34,  # bytes of a file of weights, of pictures or of adversarial images
    "ONNX_BYTES": 2**32,  # bytes that an ONNX file takes to be read and to answer, beside four times its size
    "ONNX_SECONDS": 60,  # of the processor, for the same
    "SHOWN": 2**30,  # bytes of a run's files that a report hashes, to see whether they are what was recorded
}


def most(name: str) -> int:
    """The limit of this name.

    Raises:
        ValueError: the environment variable is no positive number.
    """
    text = os.environ.get(PREFIX + name)
    if text is None:
        return LIMITS[name]
    try:
        limit = int(float(text))
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise ValueError(f"{PREFIX}{name}={text:.20}: expected a positive number, such as {LIMITS[name]}")
    return limit


def refuse_more(name: str, asked: int, what: str) -> None:
    """Refuse more than a limit allows.

    Args:
        name: the limit.
        asked: how much the input asks for.
        what: the unit in words, such as "pixels".

    Raises:
        ValueError: it is more.
    """
    allowed = most(name)
    if asked > allowed:
        raise ValueError(
            f"{asked:,} {what} are more than {allowed:,}: if they are meant, set {PREFIX}{name} to a larger number"
        )


def refuse_large(path: Path, name: str) -> None:
    """Refuse a file that is larger than a limit, or no regular file.

    Raises:
        OSError: there is no such file.
        ValueError: it is larger, or no regular file.
    """
    refuse_irregular(path)
    refuse_more(name, path.stat().st_size, "bytes")


def refuse_irregular(path: Path) -> None:
    """Refuse what is no regular file, wherever a link leads: a pipe or a device may have no end.

    Raises:
        OSError: there is no such file.
        ValueError: it is no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is no regular file")


def read_bytes(path: Path, name: str) -> bytes:
    """The content of a file that is not larger than a limit.

    Raises:
        OSError: the file cannot be read.
        ValueError: as ``refuse_large``.
    """
    refuse_large(path, name)
    return path.read_bytes()


def read_text(path: Path, name: str = "TEXT") -> str:
    """The text of a file in UTF-8; a byte-order mark, as Windows programs write it, is passed over.

    Raises:
        OSError: the file cannot be read.
        ValueError: as ``refuse_large``, or it is no UTF-8.
    """
    return read_bytes(path, name).decode("utf-8-sig")
