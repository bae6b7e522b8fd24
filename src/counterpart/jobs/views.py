"""The form of the view of a run or an evaluation, which is settled once.

A run or an evaluation that goes on must search on the form that it began with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import distributed
from ..data.image_sets import ImageSet
from ..errors import UserError
from ..evaluation.batches import read_batch
from ..models.forms import FORMS, SOME, Form, is_own
from ..models.inference import decide_form
from ..records import fingerprint
from ..rundir import RunDir, read_json, write_json
from ..training import checkpoint

FILE = "view.json"


def settle_form(
    folder: Path | None,
    identity: Mapping[str, Any],
    model: nn.Module,
    images: ImageSet,
    device: torch.device,
) -> tuple[Form, str | None]:
    """The form that an earlier start with this identity kept, or else the form that the first images decide.

    Args:
        folder: the folder that holds a folder for each evaluation, named after its identity. It is None where
            nothing is kept.
        identity: everything that decides the rows, except for the form.
        model: the original network, of which the view is a copy.
        images: the images that are evaluated.
        device: the device that the model lies on.

    Returns:
        The form, the same on every process, and on the main one the sentence that says why it is not ``fast``.
    """
    form: Form = "fast"
    reason: str | None = None
    if is_own(model):
        return "fast", None
    if distributed.is_main():
        names = [fingerprint(with_form(identity, known)) for known in FORMS]
        files = [] if folder is None else [folder / name / FILE for name in names]
        settled = next((file for file in files if file.exists()), None)
        if settled is not None:
            form, reason = _read_form(settled)
        else:
            form, reason = _decided(model, images, device)
    return _from_main(form, device), reason


def training_form(
    run: RunDir, model: nn.Module, images: ImageSet, device: torch.device
) -> tuple[Form, str | None]:
    """The form that the run's last checkpoint was made with, or else the form that the first images decide.

    Returns:
        The form, the same on every process, and on the main one the sentence that says why it is not
        ``fast``, where that was decided now.
    """
    if is_own(model):
        return "fast", None
    form: Form = "fast"
    reason: str | None = None
    if distributed.is_main():
        if run.checkpoint("last").exists():
            form = checkpoint.read_about(run.checkpoint("last")).get("view", "fast")
        else:
            form, reason = _decided(model, images, device)
    return _from_main(form, device), reason


def _read_form(file: Path) -> tuple[Form, str | None]:
    """The form and its reason that ``keep_form`` wrote."""
    try:
        stored = read_json(file)
        form: Form = FORMS[FORMS.index(stored["form"])]
        return form, stored["reason"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{file} is damaged: {error}. Remove {file.parent.name}, and evaluate again."
        ) from None


def _decided(model: nn.Module, images: ImageSet, device: torch.device) -> tuple[Form, str | None]:
    if len(images) == 0:  # whoever needs images refuses this later
        return "fast", None
    some = torch.arange(min(SOME, len(images)))
    return decide_form(model, read_batch(images, some, device).images)


def _from_main(form: Form, device: torch.device) -> Form:
    return FORMS[int(distributed.from_main(FORMS.index(form), device))]


def with_form(identity: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """The identity, with the form of the view where that is not the fast one, which is the default."""
    return {**identity, **({} if form == "fast" else {"view": form})}


def keep_form(folder: Path, model: nn.Module, form: Form, reason: str | None) -> None:
    """Write the form into the folder of an evaluation, for its next start.

    Networks of this project need no such file.
    """
    if not is_own(model) and not (folder / FILE).exists():
        write_json(folder / FILE, {"form": form, "reason": reason})
