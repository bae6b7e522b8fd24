"""Tables as CSV that a spreadsheet may open: what a name holds is text there, and never a formula."""

import csv
from collections.abc import Iterable
from typing import Any

from .terminal import visible

OF_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class CsvWriter:
    """Writes rows into an open text file.

    Args:
        file: a file that was opened with ``newline=""``, or a ``StringIO``.
        options: those of ``csv.writer``.
    """

    def __init__(self, file: Any, **options: Any) -> None:
        self._writer = csv.writer(file, **options)

    def writerow(self, cells: Iterable[object]) -> None:
        """Write a row; texts that a spreadsheet would calculate get an apostrophe in front, by which it shows them."""
        self._writer.writerow([cell if _is_number(cell) else as_text(str(cell)) for cell in cells])


def _is_number(cell: object) -> bool:
    return cell is None or isinstance(cell, int | float)


def as_text(cell: str) -> str:
    """A cell that stays text in a spreadsheet. A number in text, such as "-0.5", stays as it is."""
    text = visible(cell)
    if not text.lstrip(" ").startswith(OF_FORMULAS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
