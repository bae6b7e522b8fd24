"""Class activation maps in closed form: one weighted sum of features, no backward pass.

Where a network ends in global average pooling and a linear layer, the gradient of a logit with respect to the
pooled features is that layer's weight, divided by the number of positions, everywhere. So Grad-CAM (Selvaraju
et al. 2017, arXiv 1610.02391) and XGrad-CAM (Fu et al. 2020, arXiv 2008.02312) are both the original CAM
(Zhou et al. 2016, arXiv 1512.04150) up to that factor, and LayerCAM (Jiang et al. 2021, IEEE TIP) is the CAM of
the positive weights. Any score that is linear in the logits works alike.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

KINDS = ("grad-cam", "xgrad-cam", "layer-cam")
CLASSES = ("true", "predicted", "margin")


def score_weights(
    logits: Float[Tensor, "b k"], labels: Int[Tensor, " b"], map_class: str = "true"
) -> Float[Tensor, "b k"]:
    """How much each logit counts in the score that a map explains.

    Args:
        logits: the model's answers to the images.
        labels: true classes.
        map_class: "true": the logit of the true class; "predicted": the largest; "margin": the true class's
            minus the largest other.
    """
    classes = logits.shape[1]
    true = F.one_hot(labels, classes).to(logits)
    if map_class == "true":
        return true
    if map_class == "margin":
        runner_up = logits.detach().masked_fill(true.bool(), -torch.inf).argmax(dim=1)
        return true - F.one_hot(runner_up, classes).to(logits)
    if map_class == "predicted":
        return F.one_hot(logits.argmax(dim=1), classes).to(logits)
    raise ValueError(f"map_class must be one of {', '.join(CLASSES)}, got {map_class!r}.")


def closed_form(
    features: Float[Tensor, "b a h w"],
    weights: Float[Tensor, "k a"],
    score: Float[Tensor, "b k"],
    kind: str = "grad-cam",
) -> Float[Tensor, "b h w"]:
    """Draw class activation maps at what enters a network's global average pooling, which a linear layer follows.

    Args:
        features: what enters the pooling.
        weights: the weights of the linear layer.
        score: how much each logit counts (``score_weights``).
        kind: "grad-cam", "xgrad-cam" or "layer-cam".

    Returns:
        Maps >= 0 at the features' resolution, equal to what a backward pass gives (not normalised). XGrad-CAM
        divides by each channel's sum: where that is 0 in a channel that is not, the two differ.
    """
    check_kind(kind)
    positions = features.shape[2] * features.shape[3]
    channels = score.to(weights) @ weights
    if kind == "layer-cam":
        channels = channels.clamp_min(0)
    return torch.einsum("bahw,ba->bhw", features, channels).relu() / positions


def check_kind(kind: str, kinds: tuple[str, ...] = KINDS) -> None:
    """Refuse a ``kind`` that is none of ``kinds`` by a ValueError."""
    if kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}, got {kind!r}.")
