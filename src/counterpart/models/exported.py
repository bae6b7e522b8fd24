"""A classifier as a file that others read without this package, and that file read back as they read it."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checksums import save_tensors
from ..errors import UserError
from . import create
from .hub import read_weights
from .normalize import ImageClassifier, description_of
from .onnx_file import OnnxModel

BATCH = "batch"  # what graphs call the number of images, which may be any
INPUT, OUTPUT = "images", "logits"
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # to write an ONNX file, and to ask it


class TimmClassifier(nn.Module):
    """A network of timm behind its normalisation: what the code for loading a state dict builds, tensor for tensor.

    Args:
        arguments: those of ``timm.create_model``.
        channels: the number C of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arguments: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        import timm  # takes long to import

        self.backbone = timm.create_model(**arguments)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """The logits (B, K) of images (B, C, H, W) in [0, 1]."""
        logits: Tensor = self.backbone((images - self.mean) / self.std)
        return logits


def timm_arguments(model: nn.Module) -> dict[str, Any] | None:
    """The arguments with which ``timm.create_model`` makes the network of a classifier; None where it is not timm's."""
    described = description_of(model)
    if described is None or not str(described["name"]).startswith("timm/"):
        return None
    from . import backbones

    names = ("name", "num_classes", "in_channels", "image_size", "patch_size")
    arguments = {name: described[name] for name in names if name in described}
    return backbones.creation(**{"in_channels": 3, **arguments})


def write_export(
    format_name: str, model: nn.Module, images: Tensor, path: Path, header: Mapping[str, Any]
) -> None:
    """Write a classifier into a file.

    Args:
        format_name: one of ``catalogue.EXPORT_FORMATS``.
        model: a classifier in eval mode, on the CPU.
        images: (B, C, H, W) a few real images, by which a graph is traced.
        path: the file.
        header: what the header of a safetensors file says of the model, so that this package rebuilds it.

    Raises:
        UserError: the model has no such form, or a package is missing.
    """
    if format_name == "state-dict":
        torch.save({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    elif format_name == "safetensors":
        tensors = {name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}
        save_tensors(
            tensors, path, {"format": "pt", "counterpart": json.dumps(dict(header))} if header else None
        )
    elif format_name == "torch-export":
        with _quiet():
            torch.export.save(_traced(format_name, model, images), path)
    else:
        _refuse_missing_packages()
        with _quiet():
            program = _as_onnx(model, images)
            program.save(str(path))


def reopen(format_name: str, model: nn.Module, path: Path) -> Callable[[Tensor], Tensor]:
    """What a file answers, by the very calls that its readers make; ``model`` says which network a state dict is of."""
    if format_name == "torch-export":
        answers: Callable[[Tensor], Tensor] = torch.export.load(path).module()
        return answers
    if format_name == "onnx":
        return OnnxModel(path)
    arguments, described = timm_arguments(model), description_of(model)
    network: nn.Module
    if arguments is not None:
        assert isinstance(model, ImageClassifier)
        network = TimmClassifier(arguments, model.in_channels)
    elif described is not None:
        network = create(**described)
    else:
        network = deepcopy(model)
    network.load_state_dict(read_weights(path, ours=True)[0])
    return network.eval()


def _traced(format_name: str, model: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """The graph of a model for any number of images.

    Raises:
        UserError: torch cannot make a graph of it.
    """
    sizes = ({0: torch.export.Dim(BATCH, min=1)},)
    try:
        return torch.export.export(_Named(model), (images[:2],), dynamic_shapes=sizes)
    except Exception as error:  # tracing runs the model's own code, which may be of any kind
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"torch cannot write this model as {format_name}: {reason} A state dict (--format state-dict) needs no "
            "graph."
        ) from error


def _as_onnx(model: nn.Module, images: Tensor) -> Any:
    """The graph of a model in ONNX, whose weights are inside."""
    program = _traced("onnx", model, images)
    try:
        return torch.onnx.export(
            program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
        )
    except Exception as error:  # the translation of an operator may be missing, or fail
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"this model has no form in ONNX: {reason} Take --format torch-export.") from error


class _Named(nn.Module):
    """A model whose input has the name that graphs give it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.model(images)
        return logits


def _refuse_missing_packages() -> None:
    """Refuse ONNX where a package that writes or asks it is missing."""
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(
            f"an ONNX file needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'counterpart[onnx]'."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """A block in which torch's exporters say nothing: what they wrote is looked at afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
