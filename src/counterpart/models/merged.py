"""A model that is asked coarser questions than it was trained on: several of its outputs are one answer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .normalize import ImageClassifier


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


class _MergedClassifier(ImageClassifier):
    """A classifier, of a part model too, whose parts nobody asks for any more; its layers keep their names."""

    def __init__(self, model: ImageClassifier, last: Merged) -> None:
        super().__init__(model.backbone, len(last.members), model.in_channels)
        self.mean, self.std = model.mean, model.std
        self.last = last

    def answer(self, output: Any) -> Float[Tensor, "b g"]:
        """The logit of each group, of what the backbone returned."""
        logits: Tensor = self.last(super().answer(output))
        return logits

    def get_classifier(self) -> nn.Module:
        """No linear layer."""
        return self.last


def merged(model: nn.Module, groups: Sequence[Sequence[int]]) -> nn.Module:
    """The model with groups of its outputs as classes; it finds no parts any more.

    Args:
        model: a classifier with K outputs.
        groups: the outputs of each of its new classes.
    """
    last = Merged(groups)
    if not isinstance(model, ImageClassifier):
        return nn.Sequential(model, last).train(model.training)
    return _MergedClassifier(model, last).train(model.training)
