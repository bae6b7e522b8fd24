"""Recognise the network that a state dict belongs to, by its names and shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Shape:
    """What names and shapes of a state dict say about its network.

    Attributes:
        architectures: the names of networks that they fit.
        num_classes: the number of outputs of the final layer.
        options: the options of the network's builder, such as width and channels of the images.
    """

    architectures: tuple[str, ...]
    num_classes: int
    options: dict[str, Any] = field(default_factory=dict)


def recognise(weights: Mapping[str, Tensor]) -> Shape | None:
    """The network that a bare state dict belongs to, by its names and shapes; None if it is none of ours."""

    def blocks(*stages: str) -> tuple[int, ...]:
        """How many blocks each stage has."""
        return tuple(
            len({name[len(stage) :].split(".")[0] for name in weights if name.startswith(stage)})
            for stage in stages
        )

    def shape(name: str, stem: str, head: str, **options: Any) -> Shape | None:
        first, last = weights.get(stem), weights.get(head)
        if first is None or last is None or first.ndim != 4 or last.ndim != 2:
            return None
        return Shape(
            (name,), last.shape[0], {"width": first.shape[0], "in_channels": first.shape[1], **options}
        )

    def wide(family: str, stage: str, conv: str, stem: str, head: str) -> Shape | None:
        width = weights[f"{stage}0.{conv}"].shape[0]
        name = f"{family}-{6 * blocks(stage)[0] + 4}-{max(1, width // 16)}"
        return shape(name, stem, head, width=width)

    if "block1.layer.0.conv1.weight" in weights:
        return wide("wrn", "block1.layer.", "conv1.weight", "conv1.weight", "fc.weight")
    if "layer.0.block.0.conv_0.weight" in weights:
        return wide("dm-wrn", "layer.0.block.", "conv_0.weight", "init_conv.weight", "logits.weight")
    if "layer_0.0.conv_2d_1.weight" in weights:
        two_each = blocks("layer_0.", "layer_1.", "layer_2.", "layer_3.") == (2, 2, 2, 2)
        recognised = shape("dm-preact-resnet18", "conv_2d.weight", "logits.weight")
        return recognised if two_each else None
    if "layer1.0.conv1.weight" in weights:
        depths = (blocks("layer1.", "layer2.", "layer3.", "layer4."), "layer1.0.conv3.weight" in weights)
        if "fc.weight" in weights:  # the names of torchvision, which timm shares
            known = {
                ((2, 2, 2, 2), False): "timm/resnet18",
                ((3, 4, 6, 3), False): "timm/resnet34",
                ((3, 4, 6, 3), True): "timm/resnet50",
                ((3, 4, 23, 3), True): "timm/resnet101",
            }
            return shape(known[depths], "conv1.weight", "fc.weight") if depths in known else None
        if depths != ((2, 2, 2, 2), False):
            return None
        if "bn1.weight" in weights:
            return shape("resnet18", "conv1.weight", "linear.weight")
        final_norm = "bn.weight" in weights
        recognised = shape("preact-resnet18", "conv1.weight", "linear.weight", final_norm=final_norm)
        both = ("preact-resnet18", "preact-resnet18-fast")
        return recognised and Shape(both, recognised.num_classes, recognised.options)
    if {"0.weight", "2.weight", "5.weight", "7.weight"} <= weights.keys():
        cells = _cells(weights["2.weight"], weights["5.weight"])
        return shape("mnist-cnn", "0.weight", "7.weight", image_size=4 * cells)
    if "feature_extractor.conv1.weight" in weights and "classifier.fc1.weight" in weights:
        cells = _cells(weights.get("feature_extractor.conv4.weight"), weights["classifier.fc1.weight"])
        stem, head = "feature_extractor.conv1.weight", "classifier.fc3.weight"
        return shape("small-cnn", stem, head, image_size=4 * cells + 12)
    return None


def _cells(conv: Tensor | None, linear: Tensor) -> int:
    """The side of the map that a linear layer flattens, after a convolution."""
    if conv is None or linear.ndim != 2:
        return 1
    return max(1, int((linear.shape[1] // conv.shape[0]) ** 0.5))
