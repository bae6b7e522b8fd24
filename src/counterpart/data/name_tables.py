"""Tables of names: what the values of masks are called. CSV, JSON, and the texts that annotation tools write.

Sources: the label files of CVAT's "segmentation mask" export (``name:r,g,b::``) and of CamVid's (``r g b name``).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ..errors import UserError, unreadable
from ..parsing import read_json
from ..parsing.limits import read_text
from .marks import BACKGROUND

PixelValue: TypeAlias = int  # of a pixel: a number, or a colour as red * 65536 + green * 256 + blue
Colour: TypeAlias = tuple[int, int, int]
LINES = "lines such as '1,wheel' or '255,0,0,wheel'"


class NameTable(NamedTuple):
    """What the values of masks are called.

    Attributes:
        path: the file.
        names: the part of each value; None is background.
        colours: whether values are colours.
    """

    path: Path
    names: Mapping[PixelValue, str | None]
    colours: bool


def read_names(path: Path) -> NameTable:
    """Read the table that names the values of masks.

    Raises:
        UserError: the file cannot be read, or is no such table.
    """
    entries = _json_entries(path) if path.suffix.lower() == ".json" else _text_entries(path)
    kinds = {isinstance(key, tuple) for key, _ in entries}
    if len(kinds) != 1:
        problem = "names ids and colours" if kinds else "names no value"
        raise UserError(f"{path} {problem}: expected {LINES}, all of one kind.")
    colours = kinds.pop()
    names: dict[PixelValue, str | None] = {}
    for key, name in entries:
        numbers = key if isinstance(key, tuple) else (key,)
        if not all(0 <= number <= (255 if colours else 65_535) for number in numbers):
            raise UserError(f"{path}: {key} of {name!r} is no {'colour' if colours else 'value of a mask'}.")
        value = packed(*key) if isinstance(key, tuple) else key
        part = None if name.casefold() in BACKGROUND else name
        if names.get(value, part) != part:
            raise UserError(f"{path} gives {shown(value, colours)} two names, {names[value]!r} and {name!r}.")
        names[value] = part
    names.setdefault(0, None)
    return NameTable(path, names, colours)


def _json_entries(path: Path) -> list[tuple[int | Colour, str]]:
    try:
        loaded = read_json(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    pairs: list[tuple[Any, Any]] = []
    if isinstance(loaded, dict):
        pairs = list(loaded.items())
    elif isinstance(loaded, list) and all(isinstance(row, dict) for row in loaded):
        pairs = [(row.get("color", row.get("colour", row.get("id"))), row.get("name")) for row in loaded]
    entries = []
    for first, second in pairs:
        key = _key(first)
        name = second
        if key is None or not isinstance(second, str):
            key, name = _key(second), first
        if key is None or not isinstance(name, str) or not name.strip():
            raise UserError(
                f'{path} must look like {{"1": "wheel"}} or {{"wheel": [255, 0, 0]}}, and has '
                f"{first!r:.40}: {second!r:.40}."
            )
        entries.append((key, name.strip()))
    return entries


def _key(value: object) -> int | Colour | None:
    """An id, or a colour; None if it is neither."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value.strip()):
        red, green, blue = bytes.fromhex(value.strip()[1:])
        return red, green, blue
    if isinstance(value, str) and re.fullmatch(r"\d{1,5}", value.strip()):
        return int(value)
    if type(value) is int:
        return value
    if isinstance(value, list) and len(value) == 3 and all(type(number) is int for number in value):
        return value[0], value[1], value[2]
    return None


def _text_entries(path: Path) -> list[tuple[int | Colour, str]]:
    """The lines of a table: numbers before a name, or after it; a head and comments are passed over."""
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not re.match(r"(#(?![0-9a-fA-F]{6}\b)|//)", line)]
    entries = []
    for number, line in enumerate(lines):
        words = [word.strip("\"'") for word in re.split(r"[,;:\s]+", line) if word.strip("\"'")]
        entry = _entry(words)
        if entry is None and number == 0 and not any(_key(word) is not None for word in words):
            continue  # the head
        if entry is None:
            raise UserError(f"{path}: expected {LINES}, got {line!r:.60}.")
        entries.append(entry)
    return entries


def _entry(words: Sequence[str]) -> tuple[int | Colour, str] | None:
    """The value and the name on a line; None if it has no such form."""
    if not words:
        return None
    keys = [_key(word) for word in words]
    leading = next((k for k, key in enumerate(keys) if not isinstance(key, int)), len(keys))
    trailing = next((k for k, key in enumerate(reversed(keys)) if not isinstance(key, int)), len(keys))
    key: int | Colour | None
    if isinstance(keys[0], tuple) or isinstance(keys[-1], tuple):
        first = isinstance(keys[0], tuple)
        key, name = (keys[0], words[1:]) if first else (keys[-1], words[:-1])
    elif leading:
        count = 3 if leading >= 3 else 1
        key, name = _number(words[:count]), words[count:]
    else:
        count = 3 if trailing >= 3 else min(trailing, 1)
        key, name = _number(words[len(words) - count :]), words[: len(words) - count]
    return None if key is None or not name else (key, " ".join(name))


def _number(words: Sequence[str]) -> int | Colour | None:
    numbers = [int(word) for word in words]
    if len(numbers) == 3:
        return numbers[0], numbers[1], numbers[2]
    return numbers[0] if numbers else None


def packed(red: Any, green: Any, blue: Any) -> Any:
    """A colour as one number, or an array of them."""
    return red * 65_536 + green * 256 + blue


def shown(value: PixelValue, colours: bool) -> str:
    """A value in words."""
    if not colours:
        return f"the value {value}"
    return f"the colour #{value:06x} ({value >> 16}, {value >> 8 & 255}, {value & 255})"
