"""A model that is asked coarser questions than it was trained on: several of its outputs are one answer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .normalize import ImageClassifier


class Merged(nn.Module):
    """``logits (B, K) -> (B, G)``: the largest of each group, so that the answer is the group of the model's answer.

    Args:
        groups: the outputs of each group; none of them is in two groups.
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


class _MergedClassifier(ImageClassifier):
    """A classifier with merged outputs, whose layers keep their names. Of a part model, the parts are given up."""

    def __init__(self, model: ImageClassifier, last: Merged) -> None:
        super().__init__(model.backbone, len(last.members), model.in_channels)
        self.mean, self.std = model.mean, model.std
        self.last = last

    def answer(self, output: Any) -> Float[Tensor, "b g"]:
        """The logit of each group, from what the backbone returned."""
        logits: Tensor = self.last(super().answer(output))
        return logits

    def get_classifier(self) -> nn.Module:
        """A module without weights, since the answer is not that of a linear layer."""
        return self.last


def merged(model: nn.Module, groups: Sequence[Sequence[int]]) -> nn.Module:
    """Wrap a model so that groups of its outputs are its classes. A part model finds no parts any more.

    Args:
        model: a classifier with K outputs.
        groups: the outputs of each of its new classes.
    """
    last = Merged(groups)
    if not isinstance(model, ImageClassifier):
        return nn.Sequential(model, last).train(model.training)
    return _MergedClassifier(model, last).train(model.training)
