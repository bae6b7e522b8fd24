"""Class activation maps in closed form: one weighted sum of features, no backward pass.

Where a network ends in global average pooling and a linear layer, the gradient of a logit with respect to the
pooled features is that layer's weight, divided by the number of positions, everywhere. So Grad-CAM (Selvaraju
et al. 2017, arXiv 1610.02391) and XGrad-CAM (Fu et al. 2020, arXiv 2008.02312) are both the original CAM
(Zhou et al. 2016, arXiv 1512.04150) up to that factor.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def grad_cam_closed_form(
    features: Float[Tensor, "b a h w"], weights: Float[Tensor, "k a"], targets: Int[Tensor, " b"]
) -> Float[Tensor, "b h w"]:
    """Grad-CAM at the last feature map of a network that ends in global average pooling and a linear layer.

    Args:
        features: what enters the pooling.
        weights: of the linear layer.
        targets: class that each map explains.

    Returns:
        Maps >= 0 at the features' resolution, equal to Grad-CAM's (not normalised).
    """
    positions = features.shape[2] * features.shape[3]
    return torch.einsum("bahw,ba->bhw", features, weights[targets]).relu() / positions
