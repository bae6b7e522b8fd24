"""Checksums inside the files that we write, so that damage to one of them is noticed when it is read.

A checksum is the SHA-256 of the whole content, as 64 hex digits that count as zeros themselves. It stands

- in a JSON object, a line of records included, as the last key,
- in a configuration, as a comment that is its last line,
- in a safetensors file, in the metadata of the header.

What has none, because it is older or somebody else's, is read all the same, with one note.
"""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from importlib import import_module
from operator import ne
from pathlib import Path
from typing import Any

KEY = "checksum"
KEY_OF_TENSORS = "counterpart checksum"  # other people's files may well have a "checksum" of another kind
BLANK = "0" * 64
MOST_HEADER = 100_000_000  # bytes; safetensors itself reads no longer one

_END_OF_JSON = re.compile(rb'"([^"]{%d})"\s*:\s*"([0-9a-f]{64})"\s*\}\s*\Z' % len(KEY))
_END_OF_COMMENT = re.compile(rb"(.{%d})([0-9a-f]{64})\n\Z" % len(f"# {KEY}: "))
_WHOLE_LINE = re.compile(rb'"checksum": "[0-9a-f]{64}"\}')
_MARK_IN_COMMENT = f"# {KEY}: "
_MARK_IN_TENSORS = f'"{KEY_OF_TENSORS}":"'.encode()
_DIGITS_IN_TENSORS = re.compile(rb'"([^"]{%d})":"([0-9a-f]{64})"' % len(KEY_OF_TENSORS))
_UNFIT = "it does not fit its checksum"

_log = logging.getLogger(__name__)
_noted: list[str] = []  # the first file without a checksum: there is one note, whatever is read


def to_json(value: Mapping[str, Any], **options: Any) -> str:
    """The JSON text of an object, with its checksum; ``options`` are those of ``json.dumps``."""
    return _fill(json.dumps({**value, KEY: BLANK}, **options))


def to_commented(text: str) -> str:
    """A text of YAML whose last line is a comment with its checksum."""
    return _fill(f"{text}{_MARK_IN_COMMENT}{BLANK}\n")


def is_sealed_json(value: object, content: bytes) -> bool:
    """Whether a JSON value carries a checksum, which is taken out of it.

    Args:
        value: what was read.
        content: what it was read from: a file, or a line without its end.

    Raises:
        ValueError: the content does not fit its checksum.
    """
    if not isinstance(value, dict):
        return False
    there = _is_sealed(content, _END_OF_JSON, KEY)
    if not there and KEY in value:
        raise ValueError(_UNFIT)
    value.pop(KEY, None)
    return there


def is_sealed_comment(content: bytes) -> bool:
    """Whether the content of a configuration carries a checksum.

    Raises:
        ValueError: the content does not fit its checksum.
    """
    there = _is_sealed(content, _END_OF_COMMENT, _MARK_IN_COMMENT)
    if not there and _MARK_IN_COMMENT.encode() in content:
        raise ValueError(_UNFIT)
    return there


def is_whole_line(line: bytes) -> bool:
    """Whether a line holds the end of an object with a checksum, so that no kill tore it."""
    return _WHOLE_LINE.search(line) is not None


def save_tensors(
    tensors: Mapping[str, Any],
    path: Path,
    metadata: Mapping[str, str] | None = None,
    framework: str = "torch",
) -> None:
    """Write a safetensors file with its checksum.

    Args:
        tensors: tensors of torch, or arrays where ``framework`` is "numpy".
        path: the file.
        metadata: further texts for the header.
        framework: the module of safetensors that writes.
    """
    save_file = import_module(f"safetensors.{framework}").save_file
    path.touch()
    mode = path.stat().st_mode  # that of any new file here; safetensors makes its own, for this user alone
    save_file(dict(tensors), path, {**(metadata or {}), KEY_OF_TENSORS: BLANK})
    path.chmod(mode)
    seal_file(path)


def seal_file(path: Path) -> None:
    """Write the checksum of a safetensors file over the one that stands in its header."""
    place = _place_in_tensors(path)
    assert place is not None
    digits = _digest_of_file(path, place)
    with path.open("rb+") as file:
        file.seek(place)
        file.write(digits)


def load_tensors(path: Path) -> dict[str, Any]:
    """The torch tensors of a safetensors file, whose checksum is looked at first.

    Raises:
        OSError, SafetensorError: it cannot be read.
        ValueError: it does not fit its checksum.
    """
    from safetensors.torch import load_file

    check_tensors(path)
    return dict(load_file(path))


def check_tensors(path: Path) -> None:
    """Look at the checksum of a safetensors file, and note where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not fit its checksum.
    """
    if not is_sealed_file(path):
        note_absence(path)


def is_sealed_file(path: Path) -> bool:
    """Whether a safetensors file carries a checksum. What is no such file carries none.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not fit its checksum.
    """
    place = _place_in_tensors(path)
    if place is None:
        return False
    with path.open("rb") as file:
        file.seek(place)
        digits = file.read(len(BLANK))
    if digits != _digest_of_file(path, place):
        raise ValueError(_UNFIT)
    return True


def note_absence(source: object) -> None:
    """Say, once in a process, that a file carries no checksum."""
    if _noted:
        return
    _noted.append(str(source))
    _log.warning(
        "Note: %s carries no checksum, and other files that are read may carry none: damage to them goes unnoticed.",
        source,
    )


def _fill(text: str) -> str:
    """A text with its checksum in place of the last 64 zeros."""
    content = text.encode()
    place = content.rindex(BLANK.encode())
    return (content[:place] + _digest(content, place) + content[place + len(BLANK) :]).decode()


def _is_sealed(content: bytes, end: re.Pattern[bytes], mark: str) -> bool:
    """Whether a content ends in 64 digits behind our mark, or behind what one byte of damage makes of it."""
    match = end.search(content, max(0, len(content) - 200))
    if match is None or sum(map(ne, match[1], mark.encode())) > 1:
        return False
    if match[2] != _digest(content, match.start(2)):
        raise ValueError(_UNFIT)
    return True


def _digest(content: bytes, place: int) -> bytes:
    """The hex digits of the hash of a content whose checksum stands at a place."""
    blanked = content[:place] + BLANK.encode() + content[place + len(BLANK) :]
    return hashlib.sha256(blanked).hexdigest().encode()


def _digest_of_file(path: Path, place: int) -> bytes:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(2**20))
    with path.open("rb", buffering=0) as file:
        digest.update(file.read(place))
        digest.update(BLANK.encode())
        file.seek(place + len(BLANK))
        while length := file.readinto(buffer):
            digest.update(buffer[:length])
    return digest.hexdigest().encode()


def _place_in_tensors(path: Path) -> int | None:
    """Where the digits begin in a safetensors file; None where there are none, or the file is something else."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, MOST_HEADER))
    place = header.rfind(_MARK_IN_TENSORS)
    if place >= 0:
        return 8 + place + len(_MARK_IN_TENSORS)
    for match in _DIGITS_IN_TENSORS.finditer(header):
        differing = sum(map(ne, match[1], KEY_OF_TENSORS.encode()))
        if differing == 1:  # our key, damaged
            return 8 + match.start(2)
    return None
