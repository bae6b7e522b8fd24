"""An exponential moving average of the weights."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors: TypeAlias = tuple[Tensor, ...] | list[Tensor]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that follows it.

    At each update the copy keeps the share ``decay`` of its weights, and the rest comes from the model.

    Polyak and Juditsky 1992; for adversarial training Gowal et al. 2020, arXiv 2010.03593, with decay 0.995. Batch-norm
    statistics are averaged as well. Whole numbers, such as the index of a table, are copied from the model,
    because torch's own average would round them down.
    """

    def follow(ours: Tensors, its: Tensors, _count: Tensor | int) -> None:
        if ours[0].is_floating_point():
            torch._foreach_lerp_(ours, its, 1 - decay)
        else:
            torch._foreach_copy_(ours, its)

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
