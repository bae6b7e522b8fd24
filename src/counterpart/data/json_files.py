"""JSON files that a user hands us, whatever wrote them and however deep they are."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, **options: Any) -> Any:
    """What a JSON file holds; a byte-order mark, as Windows programs write it, is passed over.

    Args:
        path: the file.
        options: for ``json.loads``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no valid JSON, or nested too deeply to be anything that is meant.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), **options)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
