"""An exponential moving average of the weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of ``model`` that follows it: ``decay`` of itself and the rest of the model at each update.

    Polyak and Juditsky 1992; for adversarial training Gowal et al. 2020, arXiv 2010.03593, with decay 0.995. Batch-norm
    statistics are averaged as well.
    """
    follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
