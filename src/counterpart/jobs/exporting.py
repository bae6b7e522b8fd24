"""The export of a target into one file that others read, which is checked against the target before it is there."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from .. import records
from ..catalogue import export_format
from ..checksums import to_json
from ..errors import UserError
from ..evaluation.answers import logits_of
from ..evaluation.batches import read_batch
from ..evaluation.verify import MARGINAL
from ..losses.classification import margin
from ..models.adapters import Adapted
from ..models.exported import reopen, write_export
from ..models.loading_code import code_to_load
from ..models.normalize import ImageClassifier, description_of
from ..rundir import write_atomically
from .preprocessing import how_images_are_read
from .saved_images import first_saved_images
from .target import Target
from .targets import open_single_target

LOGITS = 1e-4  # how far a logit may differ; where logits range over more than 1, that share of their range
ASKED = 64  # the number of real images whose logits are compared
ATTACKED = 512  # the largest number of saved adversarial images that are tried
PORTION = 32  # images that are asked about at once


@dataclass(frozen=True)
class Compared:
    """How an exported file answered beside the model.

    Attributes:
        images: the number of real images whose logits were compared.
        difference: the largest difference between two logits.
        attacked: the number of saved adversarial images that fool the model by more than rounding may decide; all of
            them fool the file as well.
    """

    images: int
    difference: float
    attacked: int


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        path: the file of the model.
        description: the file beside it, of JSON: classes, shape and range of the images, how it was checked.
        format: one of ``catalogue.EXPORT_FORMATS``.
        code: the lines of Python that load it.
        checked: how it answered beside the model.
    """

    path: Path
    description: Path
    format: str
    code: str
    checked: Compared

    def __str__(self) -> str:
        checked = self.checked
        words = (
            f"{self.path}: logits within {checked.difference:.1e} of the model's on {checked.images} images"
        )
        if checked.attacked:
            words += f"; {checked.attacked:,} saved adversarial images fool it as well"
        return f"{words}."


def export_target(target: Target, path: Path, asked: str | None = None) -> Exported:
    """Write the model of a target into a file, with its class names beside it.

    The file is read back as its readers will read it, and answers beside the model, before it gets its name: on real
    images to 1e-4, and on the adversarial images that the target's evaluations saved. Whatever fails leaves nothing.

    Args:
        target: the model and its images.
        path: the file.
        asked: the format; None where the name of the file says it.

    Raises:
        UserError: the model has no such form, or the file does not answer as the model does.
    """
    name = export_format(path, asked)
    model = target.model.eval()
    if target.device.type != "cpu":
        model = deepcopy(model).cpu()
    images = read_batch(
        target.images, torch.arange(min(ASKED, len(target.images))), torch.device("cpu")
    ).images
    expected = logits_of(model, images)
    if not torch.equal(expected, logits_of(model, images)):
        raise UserError(
            f"{target.text} draws at random, and a file would hold one draw for ever: it is not exported."
        )
    header = header_of(target, model)
    beside = path.with_name(f"{path.name}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".export-") as place:
            draft = Path(place) / path.name
            write_export(name, model, images.float(), draft, header)
            checked = _compare(target, model, images, expected, reopen(name, model, draft))
            code = code_to_load(name, model, path.name)
            text = to_json(_describe(target, model, name, draft, checked, code), indent=1)
            write_atomically(beside, lambda file: file.write_text(text, encoding="utf-8"))
            write_atomically(path, draft.replace)
    except OSError as error:
        raise UserError(f"Could not write {path}: {error.strerror or error}.") from error
    return Exported(path, beside, name, code_to_load(name, model, str(path)), checked)


def export_named(text: str, changes: Mapping[str, Any], path: Path, asked: str | None = None) -> Exported:
    """Export what a text names, as ``export_target`` does; ``changes`` are nested settings."""
    return export_target(open_single_target(text, changes), path, asked)


def header_of(target: Target, model: nn.Module) -> dict[str, Any]:
    """What a checkpoint says of the model; nothing where it cannot be rebuilt from its description."""
    described = description_of(model)
    if described is None:
        return {}
    about = {
        "classes": list(target.images.classes),
        "data": target.config.data.name,
        "fingerprint": "",
        "config": target.who["config"],
        **(target.header or {}),
        "model": dict(described),
    }
    return {key: value for key, value in about.items() if key not in ("state", "made_by")}


def _compare(
    target: Target, model: nn.Module, images: Tensor, expected: Tensor, ask: Callable[[Tensor], Tensor]
) -> Compared:
    """Hold what a file answers against the model.

    Raises:
        UserError: a logit differs, or an adversarial image fools the file no more.
    """
    answers = _ask(ask, images)
    if answers.shape != expected.shape:
        raise UserError(
            f"the exported model answers with {tuple(answers.shape)} in place of {tuple(expected.shape)}. Nothing was "
            "written."
        )
    # A transformer's logits of one image hang on no other, so that they are compared image by image.
    allowed = LOGITS * _range(expected).clamp_min(1)
    off = (answers - expected).abs().amax(dim=1)
    if not bool((off <= allowed).all()):
        raise UserError(
            f"the exported model answers otherwise than {target.text}: its logits differ by {float(off.max()):.2g}. "
            "Nothing was written."
        )
    attacked, labels = first_saved_images(target, ATTACKED)
    before = _ask(lambda part: logits_of(model, part), attacked) if len(attacked) else expected[:0]
    fooled = margin(before, labels) > MARGINAL * _range(before)
    attacked, labels = attacked[fooled], labels[fooled]
    withstood = (
        _ask(ask, attacked).argmax(dim=1) == labels if len(attacked) else torch.zeros(0, dtype=torch.bool)
    )
    if bool(withstood.any()):
        raise UserError(
            f"{int(withstood.sum())} of {len(labels)} adversarial images that fool {target.text} do not fool the "
            "exported model. Nothing was written."
        )
    return Compared(len(images), float(off.max()), len(labels))


@torch.no_grad()
def _ask(ask: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The answers to images, a portion at a time."""
    return torch.cat([ask(part.float()) for part in torch.split(images, PORTION)])


def _range(logits: Tensor) -> Tensor:
    """The difference (B,) between the largest and the smallest logit of each image."""
    return logits.amax(dim=1) - logits.amin(dim=1)


def _describe(
    target: Target, model: nn.Module, name: str, file: Path, checked: Compared, code: str
) -> dict[str, Any]:
    """What stands beside an exported model."""
    described = description_of(model)
    return {
        "format": name,
        "file": file.name,
        "sha256": records.file_hash(file),
        **how_images_are_read(target),
        "answers": "logits (batch, classes)",
        "network": None if described is None else dict(described),
        "names of tensors": _naming(model),
        "checked": vars(checked),
        "code": code,
        "made by": {**records.environment(), "command": None},
    }


def _naming(model: nn.Module) -> str:
    """How the tensors of a state dict are called."""
    if isinstance(model, ImageClassifier):
        return "mean and std normalise the images; backbone. stands before the names of the network"
    if isinstance(model, Adapted):
        return "normalise. holds the normalisation, if any; model. stands before the names of the network"
    return "those of the network"
