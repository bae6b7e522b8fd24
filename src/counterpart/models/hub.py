"""Weights in: read a file without executing anything in it, and fit its tensors to a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import UserError
from .normalize import ImageClassifier

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
PICKLES = (".pt", ".pth", ".bin")


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weights file by name, on the CPU, and its metadata.

    Args:
        path: ``.safetensors``, whose metadata is returned; or a state dict ``.pt``, ``.pth`` or ``.bin``, bare
            or under one of the usual keys. A prefix ``module.`` that every name has is removed.
    """
    if not path.is_file():
        raise UserError(f"no weights at {path}: there is no such file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in PICKLES:
        raise UserError(f"{path} is no weights file: expected .safetensors, {', '.join(PICKLES)}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the first odd byte leads to
        raise UserError(
            f"{path} cannot be read as plain tensors: it is damaged, no PyTorch file, or holds objects whose "
            "reading would run code. Save its state dict alone and use that."
        ) from error
    return _state_dict(content, path), {}


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load all weights or, where a name or shape differs, none.

    Args:
        model: receives the weights.
        weights: as ``model.state_dict()``; batch counters of batch norms may be missing.
        source: names the weights in errors.
    """
    own = model.state_dict()
    wrong = _differing_shapes(own, weights)
    head = _classifier_names(model)
    if (
        set(wrong) <= head
        and not _differing_names(own, weights)
        and _only_classes_differ(own, weights, wrong)
    ):
        theirs, ours = weights[wrong[0]].shape[0], own[wrong[0]].shape[0]
        raise UserError(f"{source} has {theirs} classes, the data has {ours}: they do not belong together.")
    _refuse_mismatch(own, weights, source)
    model.load_state_dict({**own, **weights})


def classes_in(model: ImageClassifier, weights: Mapping[str, Tensor]) -> int:
    """How many classes weights for this kind of model were trained on; the model's own number if they do not say."""
    bare = [name.removeprefix("backbone.") for name in _classifier_names(model) if name.endswith("weight")]
    found = [weights[n].shape[0] for name in bare for n in (name, f"backbone.{name}") if n in weights]
    return found[0] if found else model.num_classes


def start_from(model: ImageClassifier, weights: Mapping[str, Tensor], source: str) -> bool:
    """Start fine-tuning from these weights; a final layer for another number of classes stays as it is.

    Args:
        model: receives the weights.
        weights: of an ``ImageClassifier``, or of its bare backbone (then mean and standard deviation stay).
        source: names the weights in errors.

    Returns:
        Whether the final layer was kept because its number of classes differs.
    """
    own = model.state_dict()
    if not any(name.startswith("backbone.") for name in weights):
        weights = {f"backbone.{name}": tensor for name, tensor in weights.items()}
        weights |= {name: own[name] for name in ("mean", "std")}
    head = _classifier_names(model)
    wrong = [name for name in _differing_shapes(own, weights) if name in head]
    replaced = _only_classes_differ(own, weights, wrong)
    if replaced:
        weights = {name: tensor for name, tensor in weights.items() if name not in head}
        weights |= {name: own[name] for name in head}
    _refuse_mismatch(own, weights, source)
    model.load_state_dict({**own, **weights})
    return replaced


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}.") from error


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
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
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in content.items()}


def _classifier_names(model: nn.Module) -> set[str]:
    """Names of the final layer's parameters."""
    if not isinstance(model, ImageClassifier):
        return set()
    last = {id(parameter) for parameter in model.get_classifier().parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in last}


def _only_classes_differ(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], wrong: list[str]) -> bool:
    """Whether these parameters of a final layer, all of wrong shape, have another number of classes alone."""

    def rest(tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
        return [tuple(tensors[name].shape[1:]) for name in wrong]

    classes = {tuple(weights[name].shape[:1]) for name in wrong}
    return len(classes) == 1 and () not in classes and rest(own) == rest(weights)


def _differing_names(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """What is missing or too much, in words."""
    missing = [f"missing {name}" for name in own if name not in weights and not _optional(name)]
    return missing + [f"unexpected {name}" for name in weights if name not in own]


def _optional(name: str) -> bool:
    """State dicts older than PyTorch 0.4.1 have no batch counters; nothing reads them in eval mode."""
    return name.endswith("num_batches_tracked")


def _differing_shapes(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name in own if name in weights and own[name].shape != weights[name].shape]


def _refuse_mismatch(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: str) -> None:
    wrong = _differing_names(own, weights) + [
        f"{name} of shape {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in _differing_shapes(own, weights)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"{source} does not fit this network: {'; '.join(wrong[:3])}{more}. Check the model's name and width."
        )
