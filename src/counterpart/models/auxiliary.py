"""A plain classifier that learns parts beside classes: heads at several strides, which inference does without.

Li et al. 2024 (ECCV), "PartImageNet++ Dataset: Scaling up Part-based Models for Robust Recognition", arXiv 2407.10918,
whose multi-scale part-supervised model (MPM) this is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..contracts import PartOutput
from ..errors import UserError
from .normalize import ImageClassifier
from .places import places_of

STRIDES = (8, 16, 32)  # pixels per cell of the maps that parts are predicted from
SHARE, LEAST = (
    4,
    64,
)  # the heads work on a quarter of a map's channels, though not on fewer than 64 where it has them


class AuxiliaryHeads(nn.Module):
    """Maps of an encoder at several strides -> part logits at each of them, both the finest first.

    Each map is narrowed by a 1x1 convolution with batch norm. From the coarsest on, the narrowed map is carried to the
    next finer one by a convolution, enlarged bilinearly and added, so that the finest part logits are made from all
    maps. A convolution makes the part logits of each. These convolutions are depthwise ones of 3x3 and then 1x1, after
    a GELU.

    Differs from the published code in that the convolutions that make part logits have a bias, and in that a map is
    narrowed to 64 channels at least (where it has them): a quarter of a small network's would be fewer than its parts.

    Args:
        widths: the channels of the maps, of the finest first.
        num_parts: P.
    """

    def __init__(self, widths: Sequence[int], num_parts: int) -> None:
        super().__init__()
        narrow = [min(width, max(LEAST, width // SHARE)) for width in widths]
        self.narrow = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, less, 1, bias=False), nn.BatchNorm2d(less))
            for width, less in zip(widths, narrow, strict=True)
        )
        self.carry = nn.ModuleList(_separable(coarse, fine, bias=False) for fine, coarse in pairwise(narrow))
        self.to_parts = nn.ModuleList(_separable(less, num_parts + 1, bias=True) for less in narrow)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The part logits (B, P + 1, h, w) at each stride, channel 0 being the background."""
        merged = [narrow(features) for narrow, features in zip(self.narrow, maps, strict=True)]
        for fine in reversed(range(len(self.carry))):
            carried = self.carry[fine](merged[fine + 1])
            merged[fine] = merged[fine] + F.interpolate(carried, merged[fine].shape[2:], mode="bilinear")
        return tuple(to_parts(features) for to_parts, features in zip(self.to_parts, merged, strict=True))


def _separable(channels: int, to: int, *, bias: bool) -> nn.Sequential:
    """GELU, a convolution of 3x3 in each channel by itself, and one of 1x1 across channels."""
    return nn.Sequential(
        nn.GELU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, to, 1, bias=bias),
    )


class AuxiliaryClassifier(ImageClassifier):
    """``images (B, C, H, W) in [0, 1] -> logits (B, K)``, and part logits when asked. Satisfies ``PartModel``.

    ``forward`` is that of the plain classifier, with the same names of layers: the heads run in ``forward_parts`` and
    in probes of a view alone. ``without_heads`` is the plain classifier itself.

    ``forward_parts`` answers with the part logits of the finest stride, which are made from all maps: they are what
    pixel accuracy and mIoU are measured on, as in the published code, and what attacks on parts aim at. Those of the
    coarser strides are ``PartOutput.coarser``; a loss of parts is averaged over all of them, as published, at their own
    resolution.

    Differs from the published code in that the loss is the cross-entropy of every other part model (there a focal loss
    with gamma 2, added to that of classes with weight 1), and in that a network without one of the strides, such as a
    transformer with patches of 16 pixels, has heads at those that it has.

    Args:
        plain: the classifier; one of timm, whose layers say their strides.
        part_classes: the class of each part.

    Raises:
        UserError: the network has no layer with maps at a stride of 8, 16 or 32 pixels.
    """

    part_classes: Tensor
    full_resolution = False

    def __init__(self, plain: ImageClassifier, part_classes: Sequence[int]) -> None:
        super().__init__(plain.backbone, plain.num_classes, plain.in_channels)
        self.mean, self.std = plain.mean, plain.std
        self.register_buffer("part_classes", torch.tensor(part_classes), persistent=False)
        widths = _widths(plain.backbone)
        self.part_layers = tuple(widths)
        self.part_heads = AuxiliaryHeads([*widths.values()], len(part_classes))

    def forward_parts(self, images: Float[Tensor, "b c h w"]) -> PartOutput:
        """Class logits and part logits, in one pass."""
        assert isinstance(self.backbone, nn.Module)
        with outputs_of(self.backbone, self.part_layers) as outputs:
            logits = self(images)
        part_logits = self.part_logits(outputs, (images.shape[2], images.shape[3]))
        return PartOutput(logits, part_logits[0], part_logits[1:])

    def part_logits(self, outputs: Sequence[Any], size: tuple[int, int]) -> tuple[Tensor, ...]:
        """The part logits at each stride, the finest first.

        Args:
            outputs: what the layers ``part_layers`` returned for images, in the layout of the network.
            size: H, W of the images.

        Raises:
            UserError: a layer returned no maps.
        """
        order = getattr(self.backbone, "output_fmt", "NCHW")
        prefix = getattr(self.backbone, "num_prefix_tokens", 0)
        maps = []
        for layer, output in zip(self.part_layers, outputs, strict=True):
            places = places_of(output.shape, size, order, prefix) if isinstance(output, Tensor) else None
            if places is None:
                raise UserError(
                    f"layer {layer!r} of {type(self.backbone).__name__} returns no maps to predict parts from: choose "
                    "another encoder for parts/auxiliary."
                )
            maps.append(places.to_maps(output))
        logits: tuple[Tensor, ...] = self.part_heads(maps)
        return logits

    def classify_parts(self, part_logits: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Refused: the class is not read from parts.

        Raises:
            UserError: always.
        """
        raise UserError(
            "parts/auxiliary cannot classify from part logits alone: it reads the encoder's features instead."
        )

    def without_heads(self) -> ImageClassifier:
        """The plain classifier that inference runs, of the same layers: what to export."""
        plain = ImageClassifier(self.backbone, self.num_classes, self.in_channels)
        plain.mean, plain.std, plain.training = self.mean, self.std, self.training
        return plain


@contextmanager
def outputs_of(body: nn.Module, layers: Sequence[str]) -> Iterator[list[Any]]:
    """What layers return in the passes within the block: a list that is filled in the order in which they run.

    Args:
        body: the network.
        layers: the names of its modules. Each runs once in a pass.
    """
    outputs: list[Any] = []
    hooks = [
        body.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output: outputs.append(output)
        )
        for layer in layers
    ]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _widths(backbone: Any) -> dict[str, int]:
    """The layers to predict parts from, the last of each stride, and their channels; the finest stride first."""
    by_stride = {about["reduction"]: about for about in getattr(backbone, "feature_info", ())}
    widths = {
        by_stride[stride]["module"]: by_stride[stride]["num_chs"] for stride in STRIDES if stride in by_stride
    }
    if not widths:
        raise UserError(
            f"{type(backbone).__name__} has no layer with maps at a stride of 8, 16 or 32 pixels: choose another "
            "encoder for parts/auxiliary."
        )
    return widths
