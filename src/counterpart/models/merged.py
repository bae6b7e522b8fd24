"""A model that is asked coarser questions than it was trained on: several of its outputs are one answer."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .normalize import Backbone, ImageClassifier
from .part_heads import PartFeatures


class Merged(nn.Module):
    """``logits (B, K) -> (B, G)``: each group's largest, so that the answer is the group of the model's own answer.

    Args:
        groups: outputs of each group, none of them in two.
    """

    members: Tensor

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        longest = max(map(len, groups))
        padded = [[*group, *([group[0]] * (longest - len(group)))] for group in groups]
        self.register_buffer("members", torch.tensor(padded))

    def forward(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b g"]:
        """The logit of each group."""
        return logits[:, self.members].amax(dim=2)


class _MergedBackbone(nn.Module):
    """A backbone with ``Merged`` behind its head."""

    def __init__(self, backbone: Backbone, last: Merged) -> None:
        super().__init__()
        self.backbone = backbone
        self.last = last
        for name in ("output_fmt", "num_prefix_tokens"):  # how timm's networks lay out features
            if hasattr(backbone, name):
                setattr(self, name, getattr(backbone, name))

    def forward_features(self, images: Tensor) -> Tensor | PartFeatures:
        return self.backbone.forward_features(images)

    def forward_head(self, features: Tensor | PartFeatures) -> Tensor:
        logits: Tensor = self.last(self.backbone.forward_head(features))  # type: ignore[arg-type]  # its own features
        return logits

    def get_classifier(self) -> nn.Module:
        return self.last


class _MergedClassifier(ImageClassifier):
    """A classifier, of a part model too, whose parts nobody asks for any more."""

    backbone: _MergedBackbone  # type: ignore[assignment]

    def forward_features(self, images: Tensor) -> Tensor | PartFeatures:  # type: ignore[override]
        found = self.backbone.forward_features(self.normalise(images))
        return self.as_maps(found) if isinstance(found, Tensor) else found

    def forward_head(self, features: Tensor | PartFeatures) -> Tensor:
        if isinstance(features, PartFeatures):
            return self.backbone.forward_head(features)
        return super().forward_head(features)


def merged(model: nn.Module, groups: Sequence[Sequence[int]]) -> nn.Module:
    """The model with groups of its outputs as classes; it finds no parts any more.

    Args:
        model: a classifier with K outputs.
        groups: the outputs of each of its new classes.
    """
    last = Merged(groups)
    if not isinstance(model, ImageClassifier):
        return nn.Sequential(model, last).train(model.training)
    made = _MergedClassifier(_MergedBackbone(model.backbone, last), len(groups), model.in_channels)  # type: ignore[arg-type]
    made.mean, made.std = model.mean, model.std
    return made.train(model.training)
