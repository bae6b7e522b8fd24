"""The two small networks of the MNIST literature, named as published; built for one image size."""

from collections import OrderedDict
from itertools import islice

from torch import nn

from ..budget import Images
from .shapes import Features, Logits


class MnistCnn(nn.Sequential):
    """Two convolutions of stride two and two linear layers. Wong et al. 2020, arXiv 2001.03994."""

    def __init__(self, num_classes: int, width: int, in_channels: int, image_size: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * (image_size // 4) ** 2, 100),
            nn.ReLU(),
            nn.Linear(100, num_classes),
        )

    def forward_features(self, images: Images) -> Features:
        """The maps after the second convolution."""
        for layer in islice(self, 4):
            images = layer(images)
        return images

    def forward_head(self, features: Features) -> Logits:
        """The linear layers."""
        for layer in islice(self, 4, None):
            features = layer(features)
        return features

    def get_classifier(self) -> nn.Module:
        """The final linear layer."""
        return self[-1]


class SmallCnn(nn.Module):
    """Four convolutions and three linear layers. Zhang et al. 2019 (TRADES), arXiv 1901.08573."""

    def __init__(self, num_classes: int, width: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        size = ((image_size - 4) // 2 - 4) // 2
        if size < 1:
            raise ValueError(f"small-cnn needs images of at least 16 pixels, got {image_size}.")
        self.feature_extractor = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(in_channels, width, 3),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(width, width, 3),
                relu2=nn.ReLU(),
                maxpool1=nn.MaxPool2d(2),
                conv3=nn.Conv2d(width, 2 * width, 3),
                relu3=nn.ReLU(),
                conv4=nn.Conv2d(2 * width, 2 * width, 3),
                relu4=nn.ReLU(),
                maxpool2=nn.MaxPool2d(2),
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(2 * width * size**2, 200),
                relu1=nn.ReLU(),
                drop=nn.Dropout(0.5),
                fc2=nn.Linear(200, 200),
                relu2=nn.ReLU(),
                fc3=nn.Linear(200, num_classes),
            )
        )

    def forward_features(self, images: Images) -> Features:
        """The maps after the second pooling."""
        return self.feature_extractor(images)  # type: ignore[no-any-return]

    def forward_head(self, features: Features) -> Logits:
        """The linear layers."""
        return self.classifier(features.flatten(1))  # type: ignore[no-any-return]

    def forward(self, images: Images) -> Logits:
        """Logits."""
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """The final linear layer."""
        return self.classifier[-1]


def mnist_cnn(num_classes: int, width: int = 16, in_channels: int = 1, image_size: int = 28) -> MnistCnn:
    """The network of fast adversarial training on MNIST."""
    return MnistCnn(num_classes, width, in_channels, image_size)


def small_cnn(num_classes: int, width: int = 32, in_channels: int = 1, image_size: int = 28) -> SmallCnn:
    """The network of TRADES on MNIST."""
    return SmallCnn(num_classes, width, in_channels, image_size)
