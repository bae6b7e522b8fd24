"""The lines of Python that read an exported model, without this package wherever that is possible."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from .exported import INPUT, timm_arguments
from .normalize import ImageClassifier, description_of

_TIMM = '''\
import timm
import torch
from torch import nn
{imports}

class Classifier(nn.Module):
    """Images (B, {channels}, H, W) in [0, 1] -> logits (B, {classes}). The normalisation is inside."""

    def __init__(self):
        super().__init__()
        self.backbone = timm.create_model({arguments})
        self.register_buffer("mean", torch.zeros({channels}, 1, 1))
        self.register_buffer("std", torch.ones({channels}, 1, 1))

    def forward(self, images):
        return self.backbone((images - self.mean) / self.std)


model = Classifier()
model.load_state_dict({tensors})
model.eval()
'''

_GRAPH = """\
import torch

model = torch.export.load({file}).module()  # images (B, C, H, W) in [0, 1] -> logits (B, K)
"""

_ONNX = """\
import onnxruntime

session = onnxruntime.InferenceSession({file}, providers=["CPUExecutionProvider"])


def model(images):  # float32 (B, C, H, W) in [0, 1] -> logits (B, K)
    return session.run(None, {{{entrance}: images}})[0]
"""

_OURS = """\
import counterpart  # the network is its own: torch-export and onnx load without it

model = counterpart.load({file})
"""

_THEIRS = """\
{imports}
model = ...  # the network from the code that made it
model.load_state_dict({tensors})
model.eval()
"""

SAFETENSORS = "from safetensors.torch import load_file\n"


def code_to_load(format_name: str, model: nn.Module, file: str) -> str:
    """The lines of Python that read a file as ``model``.

    Args:
        format_name: one of ``catalogue.EXPORT_FORMATS``.
        model: the classifier that was exported.
        file: the path of the file.
    """
    name = _quoted(file)
    if format_name == "torch-export":
        return _GRAPH.format(file=name)
    if format_name == "onnx":
        return _ONNX.format(file=name, entrance=_quoted(INPUT))
    safe = format_name == "safetensors"
    tensors = f"load_file({name})" if safe else f"torch.load({name}, weights_only=True)"
    arguments = timm_arguments(model)
    if arguments is not None:
        assert isinstance(model, ImageClassifier)
        return _TIMM.format(
            imports=SAFETENSORS if safe else "",
            channels=model.in_channels,
            classes=model.num_classes,
            arguments=_listed(arguments),
            tensors=tensors,
        )
    if description_of(model) is not None:
        return _OURS.format(file=name)
    return _THEIRS.format(imports=SAFETENSORS if safe else "import torch\n", tensors=tensors)


def _listed(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call."""
    network, *others = arguments.items()
    more = [f"{name}={value!r}" for name, value in others]
    return ", ".join([_quoted(str(network[1])), *more])


def _quoted(text: str) -> str:
    """A text as Python reads it, in double quotes where it holds none."""
    quoted = repr(text)
    return f'"{quoted[1:-1]}"' if quoted.startswith("'") and '"' not in quoted else quoted
