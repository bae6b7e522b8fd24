"""Class activation maps for any network and layer, and the cheapest exact way to any map from a probe."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..contracts import Probe
from ..models.modes import eval_mode
from .attention import ATTENTION_MAPS, attention_gradient, attention_rollout
from .closed_form import KINDS, check_kind, closed_form, score_weights

MAPS = (*KINDS, *ATTENTION_MAPS)


def layer_map(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    layer: nn.Module,
    kind: str = "grad-cam",
    map_class: str = "true",
) -> Float[Tensor, "b u v"]:
    """Class activation maps at the output of ``layer``, by a hook and a backward pass from the logits to it.

    Grad-CAM: Selvaraju et al. 2017, arXiv 1610.02391. XGrad-CAM: Fu et al. 2020, arXiv 2008.02312. LayerCAM: Jiang
    et al. 2021, IEEE TIP. Leaves mode, gradients and hooks of the model as they were.

    Args:
        model: maps images to logits (B, K). Its pass is made in eval mode, because else images influence each other.
        images: the images, in [0, 1].
        labels: the class that each map explains.
        layer: a module of ``model`` whose output is (B, A, h, w).
        kind: "grad-cam", "xgrad-cam" or "layer-cam".
        map_class: explain another score: the "predicted" class, or the "margin" of the label over the best other.

    Returns:
        Maps >= 0 at the layer's resolution (not normalised).
    """
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        with eval_mode(model), torch.enable_grad():
            logits = model(images.detach().requires_grad_())
    finally:
        handle.remove()
    if len(outputs) != 1 or outputs[0].ndim != 4:
        raise ValueError(
            f"layer must run once and return (B, A, h, w); it returned {[tuple(s.shape) for s in outputs]}."
        )
    score = score_weights(logits, labels, map_class)
    return _by_gradient(outputs[0], (logits * score).sum(), kind, keep_graph=False)


def probe_map(probe: Probe, score: Float[Tensor, "b k"], kind: str = "grad-cam") -> Float[Tensor, "b u v"]:
    """Maps of a probe, without another forward pass.

    Class activation maps are drawn at the features of the probe: in closed form where the head is global average
    pooling and a linear layer, otherwise through the part of the graph from there to the logits, which stays usable.
    Both are exact. Maps of attention are drawn from the attention of the probe.

    Args:
        probe: a forward pass with its graph.
        score: how much each logit counts in what the map explains (``score_weights``); attention rollout ignores it.
        kind: one of ``MAPS``.
    """
    check_kind(kind, MAPS)
    if kind in ATTENTION_MAPS:
        if probe.attention is None:
            raise ValueError(
                f"This view shows no attention, so it has no map {kind}: InferenceView(attention=True)."
            )
        if kind == "attention-rollout":
            return attention_rollout(probe.attention)
        return attention_gradient(probe.attention, (probe.logits * score).sum())
    if probe.features is None:
        raise ValueError(
            "This model shows no feature map (its head reads no (B, A, h, w) and no tokens of places), so no class "
            "activation map can be drawn of it. Name an inner layer with mask.layer; of a transformer, use mask.map "
            "attention-rollout or attention-gradient; or use method at."
        )
    if probe.weights is not None:
        return closed_form(probe.features.detach(), probe.weights, score, kind)
    return _by_gradient(probe.features, (probe.logits * score).sum(), kind, keep_graph=True)


def _by_gradient(features: Tensor, score: Tensor, kind: str, keep_graph: bool) -> Tensor:
    check_kind(kind)
    (gradient,) = torch.autograd.grad(score, features, retain_graph=keep_graph)
    features = features.detach()
    if kind == "layer-cam":
        return (gradient.relu() * features).sum(dim=1).relu()
    if kind == "grad-cam":
        channels = gradient.mean(dim=(2, 3))
    else:
        total = features.sum(dim=(2, 3))
        share = (gradient * features).sum(dim=(2, 3)) / total
        channels = torch.where(total == 0, 0.0, share)  # a dead channel shows nothing; NaN stays NaN
    return torch.einsum("bahw,ba->bhw", features, channels).relu()
