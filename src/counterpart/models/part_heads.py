"""Classifiers of parts: from the maps of a segmenter to class logits. Sitawarin et al. 2023 (ICLR), arXiv 2209.09117.

Every head answers ``PartFeatures -> logits (B, K)``.
"""

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..part_maps import boxes, pooling, strips

HIDDEN = 50  # the number of units of the layer before the last


class PartFeatures(NamedTuple):
    """What enters a part head.

    Attributes:
        part_logits: (B, P + 1, h, w) at the segmenter's own resolution, channel 0 being the background.
        image: (B, C, H, W) normalised, for heads that read it as well.
        features: (B, A, u, v) of the segmenter's decoder or encoder, for heads that read them instead.
    """

    part_logits: Tensor
    image: Tensor | None = None
    features: Tensor | None = None

    @property
    def maps(self) -> Tensor:
        """The maps that the head reads beside the image."""
        return self.part_logits if self.features is None else self.features

    @property
    def device(self) -> torch.device:
        """The device on which the features lie."""
        return self.part_logits.device

    def float(self) -> "PartFeatures":
        """The same features in float32."""
        image, features = (None if tensor is None else tensor.float() for tensor in self[1:])
        return PartFeatures(self.part_logits.float(), image, features)


class PartHead(nn.Module):
    """A classifier that reads what a segmenter predicts.

    Attributes:
        reads: "parts": the part logits alone; "image": the normalised image as well; "decoder", "encoder": no part
            logits at all, but the features that the segmenter's decoder or encoder makes.
        scale: how many times the segmenter's own resolution features are computed at.
    """

    reads: str = "parts"

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale

    def size(self, part_logits: Tensor) -> tuple[int, int]:
        """H, W at which the features are computed."""
        return part_logits.shape[2] * self.scale, part_logits.shape[3] * self.scale

    def get_classifier(self) -> nn.Module:
        """The final layer; a module without parameters where there is none."""
        return next((m for m in reversed(list(self.modules())) if isinstance(m, nn.Linear)), nn.Identity())


class Downsampled(PartHead):
    """Classify the parts' shares, averaged over a coarse grid, by a convolution and two linear layers (section 3.2).

    Differs from the paper's text, and follows its code and its appendix D.7, in that the background is one of the maps
    unless it is left out: the text counts the parts alone. With the image concatenated (appendix D.10, for which there
    is no code), its normalised channels are further maps.

    Args:
        num_parts: P.
        num_classes: K.
        pool: the side of the grid.
        background: whether to read the background's map as well.
        image_channels: the channels of the image, which is read as well; 0: it is not read.
        scale: see ``PartHead``.
    """

    def __init__(
        self,
        num_parts: int,
        num_classes: int,
        *,
        pool: int = 4,
        background: bool = True,
        image_channels: int = 0,
        scale: int = 1,
    ) -> None:
        super().__init__(scale)
        channels = num_parts + background + image_channels
        self.pool, self.first = pool, int(not background)
        self.reads = "image" if image_channels else "parts"
        self.classifier = nn.Sequential(
            nn.Conv2d(channels, 5 * channels, pool),
            nn.BatchNorm2d(5 * channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * channels, HIDDEN),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, num_classes),
        )

    def pooled(self, features: PartFeatures) -> Float[Tensor, "b c p p"]:
        """Average the shares (softmax over parts and background), and the image, over each cell of the grid."""
        if self.scale == 1:
            shares = F.adaptive_avg_pool2d(features.part_logits.softmax(dim=1), self.pool)
        else:
            shares = self._pooled_in_strips(features.part_logits)
        averages = [shares[:, self.first :]]
        if features.image is not None:
            averages.append(F.adaptive_avg_pool2d(features.image, self.pool))
        return torch.cat(averages, dim=1)

    def _pooled_in_strips(self, part_logits: Tensor) -> Tensor:
        size = self.size(part_logits)
        down, across = (pooling(n, self.pool).to(part_logits) for n in size)

        def share(strip: Tensor, rows: slice) -> tuple[Tensor]:
            return (down[:, rows] @ (strip.softmax(dim=1) @ across.mT),)

        return torch.stack([piece for (piece,) in strips(part_logits, size, share)]).sum(dim=0)

    def forward(self, features: PartFeatures) -> Float[Tensor, "b k"]:
        """Class logits."""
        return self.classifier(self.pooled(features))  # type: ignore[no-any-return]


class BoundingBox(PartHead):
    """Classify the soft bounding box of each part, five numbers, by two linear layers (section 3.3).

    Args:
        num_parts: P.
        num_classes: K.
        scale: see ``PartHead``.
    """

    def __init__(self, num_parts: int, num_classes: int, *, scale: int = 1) -> None:
        super().__init__(scale)
        self.classifier = nn.Sequential(
            nn.BatchNorm1d(5 * num_parts),
            nn.Linear(5 * num_parts, HIDDEN),
            nn.ReLU(),
            nn.BatchNorm1d(HIDDEN),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, features: PartFeatures) -> Float[Tensor, "b k"]:
        """Class logits."""
        part_boxes = boxes(features.part_logits, self.size(features.part_logits))
        return self.classifier(part_boxes.flatten(1))  # type: ignore[no-any-return]


class Pixel(PartHead):
    """Average the logits of a class's parts over all pixels (appendix C.2). There is nothing to train.

    Args:
        part_classes: (P,) the class of each part.
        num_classes: K.
        scale: see ``PartHead``.
    """

    part_classes: Tensor

    def __init__(self, part_classes: Int[Tensor, " p"], num_classes: int, *, scale: int = 1) -> None:
        super().__init__(scale)
        self.num_classes = num_classes
        self.register_buffer("part_classes", part_classes, persistent=False)

    def forward(self, features: PartFeatures) -> Float[Tensor, "b k"]:
        """Class logits."""
        size = self.size(features.part_logits)
        sums = [total for (total,) in strips(features.part_logits, size, _summed)]
        means = torch.stack(sums).sum(dim=0) / (size[0] * size[1])
        zeros = means.new_zeros(len(means), self.num_classes)
        return zeros.index_add(1, self.part_classes, means[:, 1:])


def _summed(strip: Tensor, rows: slice) -> tuple[Tensor]:
    return (strip.sum(dim=(2, 3)),)


class TwoHeadedDecoder(PartHead):
    """A second head on the decoder's features (appendix C.1): no part logits reach the class.

    Differs from the published code in that its maps are averaged to the 13 x 13 cells that they have for images of 224
    pixels, so that other sizes have a model too, of the same parameters.

    Args:
        width: channels of the decoder's features.
        num_classes: K.
    """

    reads = "decoder"
    cells: ClassVar[int] = 13
    least: ClassVar[int] = 10  # cells a side: with fewer nothing is left after the pooling

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Sequential(
            nn.Conv2d(width, 50, 3),
            nn.BatchNorm2d(50),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(50, 10, 1),
            nn.BatchNorm2d(10),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(self.cells),
            nn.Flatten(),
            nn.Linear(10 * self.cells**2, 100),
            nn.ReLU(),
            nn.Linear(100, num_classes),
        )

    def forward(self, features: PartFeatures) -> Float[Tensor, "b k"]:
        """Class logits."""
        return self.classifier(features.features)  # type: ignore[no-any-return]


class TwoHeadedEncoder(PartHead):
    """A second head on the encoder's last features (appendix C.1): no part logits reach the class.

    The paper's figure 7 does not tell which of the two forms its table 19 shows.

    Args:
        width: channels of the encoder's last features.
        num_classes: K.
    """

    reads = "encoder"

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 64, 4),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, num_classes),
        )

    def forward(self, features: PartFeatures) -> Float[Tensor, "b k"]:
        """Class logits."""
        return self.classifier(features.features)  # type: ignore[no-any-return]
