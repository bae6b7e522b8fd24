"""MATLAB's level-5 files, read with every length checked: numbers, texts, cells and structures.

scipy's reader trusts the lengths that a file states, and a damaged file makes it read outside of its memory. Here a
length must lie within the element around it, and dimensions must agree with what is there.

Source: The MathWorks, "MAT-file format" (level 5).
"""

import zlib
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..parsing.limits import most, refuse_more

MOST_DEPTH = 20  # levels of cells and structures within each other
HEADER_BYTES = 128
MATRIX, COMPRESSED = 14, 15
CELL, STRUCTURE, TEXT = 1, 2, 4
COMPLEX = 0x800
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}


class _Element(NamedTuple):
    """An element of a file: the kind of its data, and its bytes."""

    kind: int
    content: memoryview


def read_variables(content: bytes) -> dict[str, Any]:
    """Read the variables of a file, by name.

    Numbers are numpy arrays in the shape that MATLAB shows; a text is a ``str``, of several rows with line ends between
    them; a cell array is a list, and a structure array a list of dictionaries, both in MATLAB's order of elements.

    Raises:
        ValueError: the content is damaged, cut off, no level-5 file, or holds objects, functions, or sparse or
            complex numbers.
    """
    if len(content) < HEADER_BYTES or content[126:128] not in (b"IM", b"MI"):
        raise ValueError("it is no level-5 MAT-file")
    order = "<" if content[126:128] == b"IM" else ">"
    variables = {}
    room = most("UNPACKED")
    for element in _elements(memoryview(content)[HEADER_BYTES:], order):
        if element.kind == COMPRESSED:
            plain = _decompressed(element.content, room)
            room -= len(plain)
            (element,) = _elements(memoryview(plain), order)
        if element.kind == MATRIX:
            name, value = _matrix(element.content, order, depth=0)
            variables[name] = value
    return variables


def _decompressed(content: memoryview, room: int) -> bytes:
    """The bytes of a compressed element, if they fit into the room that is left for all of them."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(content, room + 1)
    except zlib.error as error:
        raise ValueError(f"a compressed element is damaged: {error}") from None
    if len(plain) > room:
        refuse_more("UNPACKED", most("UNPACKED") - room + len(plain), "bytes")
    if not stream.eof:
        raise ValueError("a compressed element is cut off")
    return plain


def _elements(content: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements that follow each other in some bytes."""
    start = 0
    while start < len(content):
        if start + 8 > len(content):
            raise ValueError("an element is cut off")
        kind, length = (int(word) for word in np.frombuffer(content[start : start + 8], f"{order}u4"))
        if kind >> 16:  # a small element: up to four bytes that share a word with their length
            kind, length = kind & 0xFFFF, kind >> 16
            if length > 4:
                raise ValueError(f"a small element states {length} bytes")
            yield _Element(kind, content[start + 4 : start + 4 + length])
            start += 8
            continue
        start += 8
        if start + length > len(content):
            raise ValueError(f"an element states {length} bytes where {len(content) - start} are left")
        yield _Element(kind, content[start : start + length])
        start += length if kind == COMPRESSED else (length + 7) // 8 * 8


def _matrix(content: memoryview, order: str, depth: int) -> tuple[str, Any]:
    """The name and the value of a matrix element."""
    if len(content) == 0:  # an empty field
        return "", np.zeros((0, 0))
    if depth > MOST_DEPTH:
        raise ValueError(f"arrays are nested more than {MOST_DEPTH} deep")
    elements = _elements(content, order)
    flags = _integers(_next(elements), order)
    shape = tuple(_integers(_next(elements), order))
    name = bytes(_next(elements).content).decode("latin-1")
    if not flags or not 2 <= len(shape) <= 32 or min(shape) < 0:
        raise ValueError(f"the array {name!r} has no sound flags and dimensions")
    kind = flags[0] & 0xFF
    if kind == CELL:
        return name, _matrices(elements, prod(shape), order, depth)
    if kind == STRUCTURE:
        return name, _structures(elements, prod(shape), order, depth)
    if kind == TEXT:
        return name, _text(_next(elements), shape, order)
    if kind not in CLASSES or flags[0] & COMPLEX:
        raise ValueError(f"the array {name!r} is of a kind that is not read ({kind})")
    values = _numbers(_next(elements), order)
    if len(values) != prod(shape):
        raise ValueError(f"the array {name!r} states the shape {shape} and holds {len(values)} numbers")
    return name, values.reshape(shape, order="F").astype(CLASSES[kind], copy=False)


def _structures(elements: Iterator[_Element], count: int, order: str, depth: int) -> list[dict[str, Any]]:
    width = _integers(_next(elements), order)
    names = bytes(_next(elements).content)
    if len(width) != 1 or width[0] < 1 or len(names) % width[0]:
        raise ValueError("the fields of a structure have no sound names")
    (step,) = width
    fields = [names[i : i + step].partition(b"\0")[0].decode("latin-1") for i in range(0, len(names), step)]
    values = iter(_matrices(elements, count * len(fields), order, depth))
    if not fields:
        return []
    return [dict(zip(fields, row, strict=True)) for row in zip(*[values] * len(fields), strict=True)]


def _matrices(elements: Iterator[_Element], count: int, order: str, depth: int) -> list[Any]:
    """The values of a cell array, or of all fields of a structure array."""
    values = []
    for element in elements:
        if element.kind != MATRIX:
            raise ValueError(f"an element of kind {element.kind} stands where an array should")
        values.append(_matrix(element.content, order, depth + 1)[1])
    if len(values) != count:
        raise ValueError(f"an array states {count} elements and holds {len(values)}")
    return values


def _text(element: _Element, shape: tuple[int, ...], order: str) -> str:
    encoding = ENCODINGS.get(element.kind)
    if encoding is None:
        raise ValueError(f"a text is stored as an element of kind {element.kind}")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    text = bytes(element.content).decode(encoding)
    if len(text) != prod(shape):
        raise ValueError(f"a text states the shape {shape} and holds {len(text)} characters")
    rows = shape[0] if text else 0
    return "\n".join(text[row::rows] for row in range(rows))


def _numbers(element: _Element, order: str) -> np.ndarray:
    stored = STORED.get(element.kind)
    if stored is None:
        raise ValueError(f"an element of kind {element.kind} stands where numbers should")
    return np.frombuffer(element.content, f"{order}{stored}")


def _integers(element: _Element, order: str) -> list[int]:
    values = _numbers(element, order)
    if values.dtype.kind not in "iu":
        raise ValueError("broken numbers stand where whole ones should")
    return [int(value) for value in values]


def _next(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise ValueError("an array ends too early")
    return element
