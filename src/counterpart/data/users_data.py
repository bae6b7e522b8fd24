"""Data sets that a user's own ``module:function`` returns, or that an installed package adds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..catalogue import KINDS, Entry, load_users_object, refuse_signature
from ..errors import UserError
from .image_sets import Splits
from .objects import read_splits


def load_users_data(
    entry: Entry[Any], root: Path | None, options: Mapping[str, Any], *, validation: float
) -> Splits:
    """The splits that the user's own function returns for a folder and its options.

    Args:
        entry: the entry of the catalogue that says where the function is.
        root: the folder of the setting ``data.root``, which the function is called with.
        options: the setting ``data.options``, which the function gets as keyword arguments.
        validation: the share of the training images that is kept for validation where the function returns no
            such split.

    Raises:
        UserError: the function cannot be called with these arguments, or it returns something else than data.
    """
    code, expected = load_users_object(entry.code), f"a data set {KINDS['data'].expects}"
    if not callable(code):
        raise UserError(f"{entry.code} is {type(code).__name__}: expected {expected}.")
    refuse_signature(entry.code, code, expected, root, **options)
    loaded = code(root, **options)
    if isinstance(loaded, Splits):
        return loaded
    try:
        return read_splits(loaded, validation)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{entry.code} returned {type(loaded).__name__}: expected {expected}. {error}"
        ) from error
