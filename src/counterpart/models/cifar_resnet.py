"""The residual networks of the robustness papers for small images: a 3 x 3 stem without pooling, at any width.

Modules are named as in the published code, so that published state dicts fit. Every network is
``forward_features`` (what enters global average pooling) followed by ``forward_head`` (pooling and one linear
layer); ``width`` is the number of channels of the first stage.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from torch import nn
from torch.nn import functional as F

from ..budget import Images
from .shapes import Features, Logits, Output


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two convolutions, each before its batch norm, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, features: Features) -> Output:
        """One residual step."""
        inner = F.relu(self.bn1(self.conv1(features)))
        inner = self.bn2(self.conv2(inner))
        return F.relu(inner + self.shortcut(features))


class PreActBlock(nn.Module):
    """Two convolutions, each after its batch norm and ReLU.

    A shortcut that changes shape starts after the first of them, or, where ``early_shortcut``, before.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, early_shortcut: bool = False) -> None:
        super().__init__()
        self.early_shortcut = early_shortcut
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.reshapes = stride != 1 or inputs != outputs
        if self.reshapes:
            self.shortcut = nn.Sequential(_conv(inputs, outputs, 1, stride))

    def forward(self, features: Features) -> Output:
        """One residual step."""
        active = F.relu(self.bn1(features))
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        if not self.reshapes:
            return inner + features  # type: ignore[no-any-return]
        return inner + self.shortcut(features if self.early_shortcut else active)  # type: ignore[no-any-return]


class WideBlock(nn.Module):
    """The pre-activation block under the names of the wide networks; its shortcut depends on channels alone."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _conv(outputs, outputs, 3)
        self.reshapes = inputs != outputs
        if self.reshapes:
            self.convShortcut = _conv(inputs, outputs, 1, stride)

    def forward(self, features: Features) -> Output:
        """One residual step."""
        active = F.relu(self.bn1(features))
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return inner + (self.convShortcut(active) if self.reshapes else features)  # type: ignore[no-any-return]


Block = Callable[[int, int, int], nn.Module]


def _stage(block: Block, inputs: int, outputs: int, depth: int, stride: int) -> nn.Sequential:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(depth - 1)))


class PooledNet(nn.Module, ABC):
    """A network that ends in global average pooling, so that any image size works, and one linear layer."""

    @abstractmethod
    def forward_features(self, images: Images) -> Features:
        """What enters global average pooling."""

    @abstractmethod
    def get_classifier(self) -> nn.Linear:
        """The final linear layer."""

    def forward_head(self, features: Features) -> Logits:
        """Pooling and the linear layer."""
        return self.get_classifier()(features.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.forward_head(self.forward_features(images))


class ResNet(PooledNet):
    """ResNet-18 with a 3 x 3 stem. He et al. 2016, arXiv 1512.03385, in the form that CIFAR code shares."""

    def __init__(self, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(BasicBlock, width, width, 2, stride=1)
        self.layer2 = _stage(BasicBlock, width, 2 * width, 2, stride=2)
        self.layer3 = _stage(BasicBlock, 2 * width, 4 * width, 2, stride=2)
        self.layer4 = _stage(BasicBlock, 4 * width, 8 * width, 2, stride=2)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward_features(self, images: Images) -> Features:
        """What enters global average pooling."""
        features = F.relu(self.bn1(self.conv1(images)))
        return self.layer4(self.layer3(self.layer2(self.layer1(features))))  # type: ignore[no-any-return]

    def get_classifier(self) -> nn.Linear:
        """The final linear layer."""
        return self.linear


class PreActResNet(PooledNet):
    """Pre-activation ResNet-18 with a batch norm and ReLU before pooling.

    He et al. 2016, arXiv 1603.05027, as in Rice et al. 2020, arXiv 2002.11569; with ``early_shortcut`` as in
    Wong et al. 2020, arXiv 2001.03994. Some published networks have no ``final_norm`` (and no ReLU with it).
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        in_channels: int,
        early_shortcut: bool = False,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        block = partial(PreActBlock, early_shortcut=early_shortcut)
        self.final_norm = final_norm
        self.conv1 = _conv(in_channels, width, 3)
        self.layer1 = _stage(block, width, width, 2, stride=1)
        self.layer2 = _stage(block, width, 2 * width, 2, stride=2)
        self.layer3 = _stage(block, 2 * width, 4 * width, 2, stride=2)
        self.layer4 = _stage(block, 4 * width, 8 * width, 2, stride=2)
        if final_norm:
            self.bn = nn.BatchNorm2d(8 * width)
        self.linear = nn.Linear(8 * width, num_classes)

    def forward_features(self, images: Images) -> Features:
        """What enters global average pooling."""
        features = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(images)))))
        return F.relu(self.bn(features)) if self.final_norm else features

    def get_classifier(self) -> nn.Linear:
        """The final linear layer."""
        return self.linear


class WideStage(nn.Module):
    """The blocks of one resolution."""

    def __init__(self, inputs: int, outputs: int, depth: int, stride: int) -> None:
        super().__init__()
        self.layer = _stage(WideBlock, inputs, outputs, depth, stride)

    def forward(self, features: Features) -> Output:
        """All blocks."""
        return self.layer(features)  # type: ignore[no-any-return]


class WideResNet(PooledNet):
    """WRN-D-K. Zagoruyko and Komodakis 2016, arXiv 1605.07146, initialised as there (He normal, fan-out)."""

    def __init__(self, depth: int, num_classes: int, width: int, in_channels: int) -> None:
        super().__init__()
        stem, blocks = 16, (depth - 4) // 6
        channels = [stem, width, 2 * width, 4 * width]
        stages = [
            WideStage(inputs, outputs, blocks, stride)
            for (inputs, outputs), stride in zip(pairwise(channels), (1, 2, 2), strict=True)
        ]
        self.conv1 = _conv(in_channels, stem, 3)
        self.block1, self.block2, self.block3 = stages
        self.bn1 = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward_features(self, images: Images) -> Features:
        """What enters global average pooling."""
        return F.relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(images))))))

    def get_classifier(self) -> nn.Linear:
        """The final linear layer."""
        return self.fc


def resnet18(num_classes: int, width: int = 64, in_channels: int = 3) -> ResNet:
    """ResNet-18 for small images."""
    return ResNet(num_classes, width, in_channels)


def preact_resnet18(
    num_classes: int,
    width: int = 64,
    in_channels: int = 3,
    *,
    early_shortcut: bool = False,
    final_norm: bool = True,
) -> PreActResNet:
    """Pre-activation ResNet-18 for small images."""
    return PreActResNet(num_classes, width, in_channels, early_shortcut, final_norm)


def preact_resnet18_fast(
    num_classes: int, width: int = 64, in_channels: int = 3, *, final_norm: bool = True
) -> PreActResNet:
    """The variant of fast adversarial training (Wong et al. 2020, arXiv 2001.03994), whose shortcuts begin earlier."""
    return preact_resnet18(num_classes, width, in_channels, early_shortcut=True, final_norm=final_norm)


def wide_resnet(
    depth: int, widen: int, num_classes: int, width: int | None = None, in_channels: int = 3
) -> WideResNet:
    """WRN-depth-widen; its first stage has 16 * widen channels unless ``width`` says otherwise.

    Differs from TRADES' published code in one way: its never used ``sub_block1`` does not exist.
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"a wide ResNet's depth is 6 n + 4 (10, 16, 22, 28, 34, ...), got {depth}.")
    return WideResNet(depth, num_classes, 16 * widen if width is None else width, in_channels)
