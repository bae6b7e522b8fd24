"""Weights from files: read one without executing anything in it, and fit its tensors to a model."""

import argparse
import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..checksums import check_tensors, note_absence
from ..errors import UserError, unreadable
from ..parsing.limits import most, refuse_large
from .normalize import ImageClassifier

_log = logging.getLogger(__name__)
ARCHIVE = b"PK\x03\x04"  # by these bytes torch takes a file for an archive

# Names under which training code keeps a state dict. The first one that a file has is what its authors evaluate.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "last", "best", "ema", "ema_state_dict")
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar")

# What checkpoints hold beside tensors, and what plain data suffices to rebuild: numpy's scalars, parsed arguments.
_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bhilqBHILQefd"},
    argparse.Namespace,
]


def read_weights(path: Path, *, ours: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a weights file by name, on the CPU, and its metadata.

    Args:
        path: ``.safetensors``, whose metadata is returned; or a state dict ``.pt``, ``.pth``, ``.bin``, ``.ckpt``
            or ``.tar``, bare or under one of ``WRAPPERS``. A prefix ``module.`` that every name has is removed.
        ours: whether this process has written the file, so that nobody need be told that it carries no checksum.
    """
    content, metadata = read_file(path, ours=ours)
    weights = unwrap(content, path)[0]
    prefix = "module." if all(name.startswith("module.") for name in weights) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items()}, metadata


def read_file(path: Path, *, ours: bool = False) -> tuple[Any, dict[str, str]]:
    """Read what a weights file holds, on the CPU, and its metadata. Nothing in it is executed.

    A missing checksum is no matter for a note where the file is ``ours``.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: there is no such file.")
    if path.suffix not in (".safetensors", *PICKLES):
        raise UserError(f"{path} is no weights file: expected .safetensors, {', '.join(PICKLES)}.")
    try:
        refuse_large(path, "WEIGHTS")
    except ValueError as error:
        raise unreadable(path, error) from None
    with path.open("rb") as file:
        start = file.read(512)
    _refuse_foreign(path, start)
    if path.suffix == ".safetensors" or start[8:10] == b'{"':  # its header follows eight bytes of length
        return _read_safetensors(path)
    if not ours:
        note_absence(path)
    members = _members(path)
    if not members and start.startswith(ARCHIVE):
        # torch reads some archives that cannot be listed, and what they hold would not be looked at.
        raise UserError(_why_unreadable(path, ""))
    compressed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if compressed and not _is_program(members):  # a program is refused below
        raise UserError(
            f"{path} is a compressed archive, which torch.save never writes: unpack it, or save it again."
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as error:  # torch raises whatever the first odd byte leads to
        raise UserError(_why_unreadable(path, str(error))) from error


def unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Take the state dict out of a file's content; and say which was chosen where there are several."""
    notes = []
    while isinstance(content, Mapping):
        present = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not present:
            break
        if len(present) > 1:
            notes.append(
                f"the file holds {', '.join(map(repr, present))}: {present[0]!r} is used. "
                "To use another, save that one alone."
            )
        content = content[present[0]]
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"{path} holds no state dict: expected tensors by name, got {type(content).__name__}."
        )
    odd = [
        str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if odd:
        raise UserError(
            f"{path} holds no state dict: {odd[0]!r} is no tensor. Save the model's state dict alone."
        )
    for key, value in content.items():
        if value.numel() * value.element_size() > most("WEIGHTS"):  # a few numbers, repeated without end
            raise UserError(
                f"{path} holds {key:.100} of shape {tuple(value.shape)}, which no memory can hold."
            )
    return dict(content), notes


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load all weights or, where a name or shape differs, none.

    Args:
        model: receives the weights.
        weights: as ``model.state_dict()``; batch counters of batch norms may be missing.
        source: names the weights in errors.
    """
    expected = model.state_dict()
    wrong = differing_shapes(expected, weights)
    head = head_names(model)
    if (
        set(wrong) <= head
        and not _differing_names(expected, weights)
        and _only_classes_differ(expected, weights, wrong)
    ):
        theirs, ours = weights[wrong[0]].shape[0], expected[wrong[0]].shape[0]
        raise UserError(f"{source} has {theirs} classes, the data has {ours}: they do not belong together.")
    _refuse_mismatch(expected, weights, source)
    model.load_state_dict({**expected, **weights})


def classes_in(model: ImageClassifier, weights: Mapping[str, Tensor]) -> int:
    """The number of classes that these weights were trained on; the model's own number if they do not say."""
    bare = [name.removeprefix("backbone.") for name in head_names(model) if name.endswith("weight")]
    counts = [weights[n].shape[0] for name in bare for n in (name, f"backbone.{name}") if n in weights]
    return counts[0] if counts else model.num_classes


def start_from(model: nn.Module, weights: Mapping[str, Tensor], source: str, network: str = "") -> bool:
    """Start fine-tuning from these weights; a final layer for another number of classes stays as it is.

    Args:
        model: receives the weights.
        weights: those of an ``ImageClassifier``, or of its bare backbone (then mean and standard deviation stay).
        source: names the weights in errors.
        network: the model's name in the settings. Of ``timm/NAME``, an error says which network the file looks like.

    Returns:
        Whether the final layer was kept because its number of classes differs.

    Raises:
        UserError: a name or shape differs. Nothing was loaded.
    """
    expected, original_weights = model.state_dict(), weights
    bare = not any(name.startswith("backbone.") for name in weights)
    if bare and isinstance(model, ImageClassifier):
        weights = {f"backbone.{name}": tensor for name, tensor in weights.items()}
        weights |= {name: expected[name] for name in ("mean", "std")}
    head = head_names(model)
    wrong = [name for name in differing_shapes(expected, weights) if name in head]
    replaced = _only_classes_differ(expected, weights, wrong)
    if replaced:
        weights = {name: tensor for name, tensor in weights.items() if name not in head}
        weights |= {name: expected[name] for name in head}
    try:
        _refuse_mismatch(expected, weights, source)
    except UserError as error:
        if not network.startswith("timm/"):
            raise
        from .lookalikes import say_what_it_looks_like  # timm takes long to import

        raise UserError(f"{error}{say_what_it_looks_like(original_weights, network)}") from None
    model.load_state_dict({**expected, **weights})
    return replaced


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        check_tensors(path)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(_damaged_tensors(path, error)) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors and its checksum."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(_damaged_tensors(path, error)) from error


def _damaged_tensors(path: Path, error: Exception) -> str:
    return f"{path} is damaged or no safetensors file: {error}. Put back a copy of it, or make it anew."


def _refuse_foreign(path: Path, start: bytes) -> None:
    """Refuse what a download often leaves instead of weights, and say what it is."""
    if not start:
        raise UserError(f"{path} is empty, so damaged: its download or copy failed. Get it again.")
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{path} is a web page, not weights: the server answered with a login, a quota or a confirmation. "
            "Open the address in a browser and download the file from there."
        )
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a pointer of Git LFS, not the weights themselves: run git lfs pull.")


def _why_unreadable(path: Path, reason: str) -> str:
    """Say in one line why torch refuses a file, and what to do."""
    if _is_program(_members(path)):
        return (
            f"{path} is a TorchScript program, which is code. If you trust it, save its weights once: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')."
        )
    asked = re.search(r"GLOBAL ([\w.]+)", reason)
    if asked:
        return (
            f"{path} holds objects whose reading would run code (it asks for {asked[1]}). If you trust it, open it in "
            "the code that made it and save its state dict alone: torch.save(x.state_dict(), 'weights.pt') if x is a "
            "model, or torch.save(x['state_dict'], 'weights.pt') if a dictionary."
        )
    return f"{path} cannot be read as plain tensors: it is damaged, or no PyTorch file."


def is_program(path: Path) -> bool:
    """Whether a file is a TorchScript program."""
    return path.suffix in PICKLES and _is_program(_members(path))


def _is_program(members: Sequence[zipfile.ZipInfo]) -> bool:
    """Whether an archive is a TorchScript program."""
    return any(member.filename.endswith("/constants.pkl") for member in members)


def _members(path: Path) -> list[zipfile.ZipInfo]:
    """The members of a zip archive; none where the file is no archive, or its table is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        _log.debug("%s is no archive that can be listed: %s", path, error)
        return []


def head_names(model: nn.Module) -> set[str]:
    """The names of the final layer's parameters."""
    if not isinstance(model, ImageClassifier):
        return set()
    last = {id(parameter) for parameter in model.get_classifier().parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in last}


def _only_classes_differ(
    expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], wrong: list[str]
) -> bool:
    """Whether these parameters of a final layer, all of wrong shape, have another number of classes alone."""

    def rest(tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
        return [tuple(tensors[name].shape[1:]) for name in wrong]

    classes = {tuple(weights[name].shape[:1]) for name in wrong}
    return len(classes) == 1 and () not in classes and rest(expected) == rest(weights)


def _differing_names(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Say which names are missing and which are unexpected."""
    missing = [f"missing {name}" for name in expected if name not in weights and not optional(name)]
    return missing + [f"unexpected {name}" for name in weights if name not in expected]


def optional(name: str) -> bool:
    """Whether a name is a batch counter: state dicts older than PyTorch 0.4.1 lack them, and eval mode needs none."""
    return name.endswith("num_batches_tracked")


def differing_shapes(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """The names of tensors that both have, in different shapes."""
    return [name for name in expected if name in weights and expected[name].shape != weights[name].shape]


def _refuse_mismatch(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> None:
    wrong = _differing_names(expected, weights) + [
        f"{name} of shape {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in differing_shapes(expected, weights)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"{source} does not fit this network: {'; '.join(wrong[:3])}{more}. Check the model's name and width."
        )
