"""The size of a network and the cost of a forward pass, counted on tensors that take no memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from . import create
from .auxiliary import AuxiliaryClassifier


@dataclass(frozen=True)
class Size:
    """The size of a network.

    Attributes:
        parameters: the number of its parameters; of those that inference has, where it does without some.
        operations: the floating-point operations of a forward pass on one image, where a multiplication and an addition
            count as two. Only convolutions and matrix products are counted, which are nearly all.
    """

    parameters: int
    operations: int


def size_of(about: Mapping[str, Any]) -> Size:
    """The size of the network that ``models.create(**about)`` makes; nothing is computed or downloaded."""
    with torch.device("meta"), torch.no_grad():
        model = create(**about).eval()
        if isinstance(model, AuxiliaryClassifier):
            model = model.without_heads()
        image = torch.zeros(1, about.get("in_channels", 3), about["image_size"], about["image_size"])
        with FlopCounterMode(display=False) as counter:
            model(image)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Size(parameters, int(counter.get_total_flops()))
