"""Grad-CAM for any network and layer, and the cheapest exact way to it from a probe."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..protocols import Probe
from .closed_form import grad_cam_closed_form


def grad_cam(
    model: nn.Module, images: Float[Tensor, "b c h w"], targets: Int[Tensor, " b"], layer: nn.Module
) -> Float[Tensor, "b u v"]:
    """Grad-CAM at the output of ``layer``, by a hook and a backward pass from the logits to it.

    Selvaraju et al. 2017, arXiv 1610.02391. Leaves mode, gradients and hooks of the model as they were.

    Args:
        model: maps images to logits (B, K); batch norm should be in eval mode, or images influence each other.
        images: in [0, 1].
        targets: class that each map explains.
        layer: a module of ``model`` whose output is (B, A, h, w).

    Returns:
        Maps >= 0 at the layer's resolution (not normalised).
    """
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        with torch.enable_grad():
            logits = model(images.detach().requires_grad_())
    finally:
        handle.remove()
    if len(seen) != 1 or seen[0].ndim != 4:
        raise ValueError(
            f"layer must run once and return (B, A, h, w); it returned {[tuple(s.shape) for s in seen]}."
        )
    return _weighted(seen[0], _score(logits, targets), keep_graph=False)


def probe_map(probe: Probe, targets: Int[Tensor, " b"]) -> Float[Tensor, "b u v"]:
    """Grad-CAM at the features of a probe, without another forward pass.

    In closed form where the head is global average pooling and a linear layer; otherwise through the head's part
    of the graph that the probe keeps, which stays usable. Both are exact.
    """
    if probe.features is None:
        raise ValueError(
            "This model shows no feature map (no forward_features returning (B, A, h, w)), so no class activation "
            "map can be drawn. Use method 'at', or a convolutional network."
        )
    if probe.weights is not None:
        return grad_cam_closed_form(probe.features.detach(), probe.weights, targets)
    return _weighted(probe.features, _score(probe.logits, targets), keep_graph=True)


def _score(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None]).sum()


def _weighted(features: Tensor, score: Tensor, keep_graph: bool) -> Tensor:
    (gradient,) = torch.autograd.grad(score, features, retain_graph=keep_graph)
    importance = gradient.mean(dim=(2, 3))
    return torch.einsum("bahw,ba->bhw", features.detach(), importance).relu()
