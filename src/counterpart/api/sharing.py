"""The function that passes a model on with its evaluations: ``share``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import merge
from ..dotted_names import nest
from ..jobs.sharing import Shared, share_named
from .state import left_as_found


def share(
    model: str | Path,
    to: str | Path,
    *,
    root: str | Path | None = None,
    licence: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Shared:
    """Write a model with its evaluations and a model card into a folder, or send it to the Hugging Face Hub.

    The folder is a run folder: ``load``, ``evaluate`` and the commands take it, and ``counterpart verify`` derives
    every claim again from the folder alone, because it holds the images that were judged. Every evaluation is verified
    before it goes in; one of other weights, or on data that are not there, is left out and named. Paths of this machine
    become their last name. The folder is complete or not there.

    Args:
        model: a run folder, or another name that ``evaluate`` understands.
        to: a folder that does not exist yet, or hf://OWNER/NAME. The hub's own client sends it, under the account that
            it is logged in with; a repository that is new is private.
        root: the folder that holds the data set.
        licence: the licence of the weights, such as "mit", for the card.
        changes: other settings by their dotted names, such as {"evaluate.weights": "last"}.

    Returns:
        The folder or the address, the evaluations that it holds, and why others were left out.

    Raises:
        UserError: the model cannot be rebuilt from a folder, a claim does not hold, or the hub refuses.
    """
    settings = merge({} if root is None else {"data": {"root": str(root)}}, nest(changes))
    with left_as_found():
        return share_named(str(model), settings, str(to), licence)
