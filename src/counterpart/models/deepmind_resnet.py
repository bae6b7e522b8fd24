"""The residual networks of DeepMind's robustness papers, which most of RobustBench's leaders are.

Gowal et al. 2020, arXiv 2010.03593. Beside those of ``cifar_resnet`` they have SiLU for ReLU, pad before a stride of
two on the right and at the bottom only (TensorFlow's "same"), and name their modules otherwise. Modules are named
as in the published code, so that published state dicts fit.
"""

from abc import abstractmethod
from itertools import pairwise

from torch import nn
from torch.nn import functional as F

from ..budget import Images
from .cifar_resnet import PooledNet
from .shapes import Features, Output


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3; one of stride two leaves its padding to ``_pad``."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1 if stride == 1 else 0, bias=False)


def _pad(features: Features, stride: int) -> Output:
    return features if stride == 1 else F.pad(features, (0, 1, 0, 1))


class DeepMindWideBlock(nn.Module):
    """Two convolutions, each after its batch norm and SiLU, beside a shortcut that depends on channels alone."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_0 = _conv(inputs, outputs, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_1 = _conv(outputs, outputs)
        self.reshapes = inputs != outputs
        if self.reshapes:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, features: Features) -> Output:
        """One residual step."""
        active = F.silu(self.batchnorm_0(features))
        inner = self.conv_0(_pad(active, self.stride))
        inner = self.conv_1(F.silu(self.batchnorm_1(inner)))
        return inner + (self.shortcut(active) if self.reshapes else features)  # type: ignore[no-any-return]


class DeepMindPreActBlock(nn.Module):
    """Two convolutions, each after its batch norm and SiLU, beside a 3 x 3 shortcut from the block's input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_2d_1 = _conv(inputs, outputs, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_2d_2 = _conv(outputs, outputs)
        self.reshapes = stride != 1 or inputs != outputs
        if self.reshapes:
            self.shortcut = _conv(inputs, outputs, stride)

    def forward(self, features: Features) -> Output:
        """One residual step."""
        active = F.silu(self.batchnorm_0(features))
        inner = self.conv_2d_1(_pad(active, self.stride))
        inner = self.conv_2d_2(F.silu(self.batchnorm_1(inner)))
        return inner + (self.shortcut(_pad(features, self.stride)) if self.reshapes else features)  # type: ignore[no-any-return]


class DeepMindStage(nn.Module):
    """The blocks of one resolution."""

    def __init__(self, inputs: int, outputs: int, depth: int, stride: int) -> None:
        super().__init__()
        later = (DeepMindWideBlock(outputs, outputs, 1) for _ in range(depth - 1))
        self.block = nn.Sequential(DeepMindWideBlock(inputs, outputs, stride), *later)

    def forward(self, features: Features) -> Output:
        """All blocks."""
        return self.block(features)  # type: ignore[no-any-return]


class _Network(PooledNet):
    """What both networks end in: batch norm and SiLU before global average pooling, and one linear layer."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.batchnorm = nn.BatchNorm2d(channels)
        self.logits = nn.Linear(channels, num_classes)

    @abstractmethod
    def stages(self, images: Images) -> Features:
        """Everything before the last batch norm."""

    def forward_features(self, images: Images) -> Features:
        """What enters global average pooling."""
        return F.silu(self.batchnorm(self.stages(images)))

    def get_classifier(self) -> nn.Linear:
        """The final linear layer."""
        return self.logits


class DeepMindWideResNet(_Network):
    """WRN-D-K."""

    def __init__(self, depth: int, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__(4 * width, num_classes)
        channels = [16, width, 2 * width, 4 * width]
        self.init_conv = _conv(in_channels, channels[0])
        self.layer = nn.Sequential(
            *(
                DeepMindStage(inputs, outputs, (depth - 4) // 6, stride)
                for (inputs, outputs), stride in zip(pairwise(channels), (1, 2, 2), strict=True)
            )
        )

    def stages(self, images: Images) -> Features:
        """Everything before the last batch norm."""
        return self.layer(self.init_conv(images))  # type: ignore[no-any-return]


class DeepMindPreActResNet(_Network):
    """Pre-activation ResNet-18."""

    def __init__(self, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__(8 * width, num_classes)
        self.conv_2d = _conv(in_channels, width)
        self.layer_0 = nn.Sequential(
            DeepMindPreActBlock(width, width, 1), DeepMindPreActBlock(width, width, 1)
        )
        self.layer_1, self.layer_2, self.layer_3 = (
            nn.Sequential(DeepMindPreActBlock(wide // 2, wide, 2), DeepMindPreActBlock(wide, wide, 1))
            for wide in (2 * width, 4 * width, 8 * width)
        )

    def stages(self, images: Images) -> Features:
        """Everything before the last batch norm."""
        return self.layer_3(self.layer_2(self.layer_1(self.layer_0(self.conv_2d(images)))))  # type: ignore[no-any-return]


def dm_wide_resnet(
    depth: int, widen: int, num_classes: int, width: int | None = None, in_channels: int = 3
) -> DeepMindWideResNet:
    """DeepMind's WRN-depth-widen; its first stage has 16 * widen channels unless ``width`` says otherwise."""
    return DeepMindWideResNet(depth, num_classes, 16 * widen if width is None else width, in_channels)


def dm_preact_resnet18(num_classes: int, width: int = 64, in_channels: int = 3) -> DeepMindPreActResNet:
    """DeepMind's pre-activation ResNet-18."""
    return DeepMindPreActResNet(num_classes, width, in_channels)
