"""Batch norm and dropout over processes, so that a share of a batch is trained as within the whole batch.

Otherwise a step would depend on the number of processes. ``nn.SyncBatchNorm`` does this for batch norm, but
not on a CPU, and it has to replace modules, of which timm has others. On CUDA its function is called here, whose
fused kernels send one message forward and one backward; sums in torch send two and two.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules._functions import SyncBatchNorm
from torch.overrides import TorchFunctionMode

from .. import distributed


def as_whole(size: int) -> AbstractContextManager[object]:
    """A context in which batch norm and dropout act as if all processes held one batch of ``size`` images.

    All processes must make the same passes. Batch norms in training mode take the statistics of the whole batch.
    Dropout draws for the whole batch and takes its own share of what was drawn, so that the generators of all processes
    must be in the same state.
    """
    return nullcontext() if distributed.world_size() == 1 else _AsWhole(size)


class _AsWhole(TorchFunctionMode):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.share = size, distributed.share(size)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            func = batch_norm
        elif func is F.dropout:
            func = self.dropout
        return func(*args, **(kwargs or {}))

    def dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """``F.dropout`` of a share, or of several shares that follow one another.

        Several shares are, for instance, those of the clean and of the attacked images.
        """
        several, rest = divmod(len(input), self.share.stop - self.share.start)
        if not training or p in (0, 1) or rest:
            return F.dropout(input, p, training, inplace)
        whole = input.new_empty((several * self.size, *input.shape[1:]))
        if input.dim() == 4 and not input.is_contiguous():
            whole = whole.to(memory_format=torch.channels_last)  # numbers are drawn in the order of memory
        mask = torch.cat([batch[self.share] for batch in torch.split(whole.bernoulli_(1 - p), self.size)])
        return input * (mask / (1 - p))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.batch_norm`` of a share (b, C, ...) by the statistics of all shares, in float32 at least."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if _has_kernels(input):
        normalised: Tensor = SyncBatchNorm.apply(
            input,
            weight,
            bias,
            running_mean,
            running_var,
            eps,
            momentum,
            dist.group.WORLD,
            distributed.world_size(),
        )
        return normalised
    images = input.to(torch.promote_types(input.dtype, torch.float32))
    over = [0, *range(2, images.dim())]
    places = (1, -1, *(1 for _ in over[1:]))
    here = images.new_tensor([images.numel() / images.shape[1]])
    total = _sum(torch.cat([images.sum(over), here]))
    mean, count = total[:-1] / total[-1], total[-1].detach()
    centred = images - mean.view(places)
    variance = _sum(centred.square().sum(over)) / count
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (count / (count - 1)), momentum)
    scale = (variance + eps).rsqrt()
    result = centred * (scale if weight is None else scale * weight).view(places)
    return (result if bias is None else result + bias.view(places)).to(input.dtype)


def _has_kernels(input: Tensor) -> bool:
    """Whether torch has fused kernels for batch norm over processes."""
    return input.is_cuda


class _Sum(torch.autograd.Function):
    """A sum over processes. Its gradient is the sum of the gradients on all processes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.sum_([total])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.sum_([total])
        return total


def _sum(value: Tensor) -> Tensor:
    return _Sum.apply(value)  # type: ignore[no-any-return]
