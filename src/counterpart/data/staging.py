"""Folders in the making: a stage for unfinished files, a journal of what is done, files that are whole or absent."""

from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..checksums import to_json
from ..errors import UserError
from ..locks import is_lock_file
from ..parsing import read_json
from ..records import cut_unfinished_line, read_rows
from ..rundir import sweep, write_atomically
from .parts_folder import TABLE

MANIFEST = "manifest.jsonl"
REFUSED = "refused.txt"
STAGE = ".unfinished"
JOURNAL = "journal.jsonl"
LOCK = ".preparation.lock"  # of whoever makes a folder

Rows: TypeAlias = list[dict[str, Any]]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Not flushed to disk, which would take longer than all else together:
    the manifest waits for all of them."""
    half = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(content)
        half.replace(path)
    except OSError as error:
        raise UserError(f"Could not write {path}: {error.strerror or error}. Free some space.") from error


def as_png(array: np.ndarray) -> bytes:
    """Encode an image or a mask as the bytes of a PNG file."""
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def open_journal(target: Path, about: Mapping[str, Any]) -> Path:
    """Open the journal of this preparation, whose first line says what it belongs to."""
    journal = target / STAGE / JOURNAL
    if journal.exists():
        lines = read_lines(journal)
        refuse_other(target, about, lines[0] if lines else {})
        cut_unfinished_line(journal)
        sweep(target)
        return journal
    if target.exists() and any(path.name != STAGE and not is_lock_file(path) for path in target.iterdir()):
        raise UserError(f"{target} is not empty: --target must name a new or empty folder.")
    write_atomically(journal, partial(Path.write_text, data=to_json(about) + "\n", encoding="utf-8"))
    return journal


def refuse_other(target: Path, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Refuse a folder that was prepared otherwise by a UserError."""
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise UserError(
                f"{target} holds another preparation ({key}: {theirs.get(key)} there, {value} now): "
                "name another --target, or remove the folder."
            )


def prepared_with(target: Path) -> dict[str, Any]:
    """The options by which a complete folder was prepared."""
    try:
        options = read_json(target / TABLE).get("prepared", {})
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(
            f"{target / TABLE} is damaged: {error}. Remove the folder, and prepare again."
        ) from None
    if not isinstance(options, dict):
        raise UserError(
            f"{target / TABLE} is damaged: prepared is no table of options. Remove the folder, and "
            "prepare again."
        )
    return options


def read_lines(path: Path) -> Rows:
    """Read the whole lines of a file; a last one that a kill tore is passed over."""
    return [row for _, _, row in read_rows(path, "is damaged")]
