"""Part models: a segmenter and a head that classifies what it found, as one classifier of images in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..contracts import PartOutput
from ..errors import UserError, nearest
from . import backbones
from .auxiliary import AuxiliaryClassifier
from .normalize import ImageClassifier
from .part_heads import (
    BoundingBox,
    Downsampled,
    PartFeatures,
    PartHead,
    Pixel,
    TwoHeadedDecoder,
    TwoHeadedEncoder,
)
from .segmenters import Segmenter, statistics

ENCODER = "backbone.segmenter.encoder."  # before the names of an encoder's tensors in a part model
HEADS = ("downsampled", "bounding-box", "two-headed", "pixel")

# The classifier of the same encoder, and of the same weights where timm has them.
BASELINES = {
    "resnet50": "resnet50.tv_in1k",
    "resnext50_32x4d": "resnext50_32x4d.tv_in1k",
    "efficientnet-b4": "efficientnet_b4",
}


class PartNetwork(nn.Module):
    """Segmenter and head, a network in two halves like every other; it sees normalised images."""

    def __init__(self, segmenter: Segmenter, head: PartHead) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.head = head

    def forward_features(self, images: Tensor) -> PartFeatures:
        """The segmenter's answer."""
        segmented = self.segmenter(images)
        match self.head.reads:
            case "image":
                return PartFeatures(segmented.part_logits, image=images)
            case "decoder":
                return PartFeatures(segmented.part_logits, features=segmented.decoded)
            case "encoder":
                return PartFeatures(segmented.part_logits, features=segmented.encoded)
        return PartFeatures(segmented.part_logits)

    def forward_head(self, features: PartFeatures) -> Tensor:
        """Class logits (B, K), in float32 whatever the precision of the segmenter."""
        kind = features.device.type
        with torch.autocast("cpu" if kind == "meta" else kind, enabled=False):  # which meta does not know
            logits: Tensor = self.head(features.float())
        return logits

    def get_classifier(self) -> nn.Module:
        """The final layer."""
        return self.head.get_classifier()


class PartClassifier(ImageClassifier):
    """A part model: ``images (B, C, H, W) in [0, 1] -> logits (B, K)``. Satisfies ``contracts.PartModel``.

    Args:
        network: sees normalised images.
        part_classes: the class of each part.
        num_classes: K.
        in_channels: C.
        mean: per channel.
        std: per channel.
        full_resolution: compute features and losses of parts at the images' resolution, as published, in strips.
    """

    backbone: PartNetwork  # type: ignore[assignment]
    part_classes: Tensor

    def __init__(
        self,
        network: PartNetwork,
        part_classes: Sequence[int],
        num_classes: int,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        full_resolution: bool = False,
    ) -> None:
        super().__init__(network, num_classes, in_channels, mean, std)  # type: ignore[arg-type]
        self.register_buffer("part_classes", torch.tensor(part_classes), persistent=False)
        self.full_resolution = full_resolution

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> PartFeatures:  # type: ignore[override]
        """What enters the head."""
        return self.backbone.forward_features(self.normalise(images))

    def forward_head(self, features: PartFeatures) -> Float[Tensor, "b k"]:  # type: ignore[override]
        """Class logits."""
        return self.backbone.forward_head(features)

    def forward_parts(self, images: Float[Tensor, "b c h w"]) -> PartOutput:
        """Class logits and part logits, in one pass."""
        features = self.forward_features(images)
        return PartOutput(self.forward_head(features), features.part_logits)

    def encoder_tensors(self) -> dict[str, Tensor]:
        """The parameters and buffers of the segmenter's encoder. Its decoder and the head are no part of it."""
        everything = self.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in everything.items() if name.startswith(ENCODER)}

    def classify_parts(self, part_logits: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Class logits of part logits alone, at the segmenter's own resolution.

        Raises:
            UserError: the head looks at more than part logits.
        """
        head = self.backbone.head
        if head.reads != "parts":
            input_in_words = (
                "the image as well" if head.reads == "image" else f"the {head.reads}'s features instead"
            )
            raise UserError(
                f"{type(head).__name__} cannot classify from part logits alone: it reads {input_in_words}."
            )
        return self.forward_head(PartFeatures(part_logits))


@dataclass(frozen=True)
class PartOptions:
    """What a part model is made of.

    Attributes:
        part_classes: the class of each part, -1 for a part of several.
        encoder: a name of segmentation-models-pytorch, or ``timm/NAME``.
        decoder: one of ``segmenters.DECODERS``.
        depth: stages of the encoder; default: the decoder's.
        output_stride: 8 or 16; default: the decoder's.
        resolution: "own": features and losses at the segmenter's resolution; "full": at the images', as published.
        pool: side of the grid (downsampled).
        background: keep the background's map (downsampled).
        see_image: let the head see the image as well (downsampled).
        branch: what the second head hangs on, "decoder" or "encoder" (two-headed).
    """

    part_classes: Sequence[int]
    encoder: str = "resnet50"
    decoder: str = "deeplabv3plus"
    depth: int | None = None
    output_stride: int | None = None
    resolution: str = "own"
    pool: int = 4
    background: bool = True
    see_image: bool = False
    branch: str = "decoder"


def create(
    name: str, num_classes: int, in_channels: int, image_size: int, pretrained: bool, options: PartOptions
) -> ImageClassifier:
    """The part model ``parts/HEAD``, or the plain classifier of the same encoder.

    ``parts/baseline`` is that classifier, and ``parts/auxiliary`` the same with heads that predict parts in training.

    Args:
        name: "parts/" and one of ``HEADS``, "auxiliary" or "baseline".
        num_classes: K.
        in_channels: of the images.
        image_size: their side in pixels.
        pretrained: start the encoder from ImageNet weights.
        options: everything else.
    """
    kind = name.removeprefix("parts/")
    if kind == "baseline":
        return _baseline(options.encoder, num_classes, in_channels, image_size, pretrained)
    if kind not in (*HEADS, "auxiliary"):
        known = [f"parts/{head}" for head in (*HEADS, "auxiliary", "baseline")]
        raise UserError(f"no part model is called {name!r}. {nearest(name, known)}")
    parts = len(options.part_classes)
    if not parts:
        raise UserError(f"{name} needs images with annotated parts: their data set names none.")
    if kind == "auxiliary":
        plain = _baseline(options.encoder, num_classes, in_channels, image_size, pretrained)
        return _auxiliary(plain, options.part_classes, image_size)
    segmenter = Segmenter(
        parts + 1, options.encoder, options.decoder, options.depth, options.output_stride,
        in_channels, image_size, pretrained,
    )  # fmt: skip
    head = _head(kind, segmenter, num_classes, in_channels, image_size, options)
    mean, std = statistics(options.encoder, in_channels)
    return PartClassifier(
        PartNetwork(segmenter, head), options.part_classes, num_classes, in_channels, mean, std,
        options.resolution == "full",
    )  # fmt: skip


def _head(
    kind: str, segmenter: Segmenter, num_classes: int, in_channels: int, image_size: int, options: PartOptions
) -> PartHead:
    """The head of a name that is known."""
    parts = len(options.part_classes)
    scale = segmenter.scale if options.resolution == "full" else 1
    if kind == "downsampled":
        channels = in_channels if options.see_image else 0
        return Downsampled(
            parts, num_classes, pool=options.pool, background=options.background, image_channels=channels,
            scale=scale,
        )  # fmt: skip
    if kind == "bounding-box":
        return BoundingBox(parts, num_classes, scale=scale)
    if kind == "pixel":
        if min(options.part_classes) < 0:
            raise UserError(
                "parts/pixel needs parts that belong to one class each: use another head or data.labels."
            )
        return Pixel(torch.tensor(options.part_classes), num_classes, scale=scale)
    decoded, encoded = segmenter.widths
    if options.branch == "encoder":
        return TwoHeadedEncoder(encoded, num_classes)
    cells, least = image_size // segmenter.scale, TwoHeadedDecoder.least
    if cells < least:
        raise UserError(
            f"parts/two-headed reads at least {least} x {least} cells of the decoder, and images of {image_size} "
            f"pixels have {cells}: choose a larger data.size, or model.branch encoder."
        )
    return TwoHeadedDecoder(decoded, num_classes)


def _baseline(
    encoder: str, num_classes: int, in_channels: int, image_size: int, pretrained: bool
) -> ImageClassifier:
    """timm's classifier of an encoder's name, whose head is known to be used.

    The published code put the new layer of its EfficientNet where the network never calls it.
    """
    name = classifier_name(encoder)
    if not timm.is_model(name):
        raise UserError(f"timm has no classifier {name!r} to compare with: name an encoder timm/NAME.")
    model = backbones.create(f"timm/{name}", num_classes, in_channels, image_size, pretrained)
    if not produces(model, num_classes, in_channels, image_size):
        raise UserError(f"timm/{name} does not answer with {num_classes} classes: choose another encoder.")
    return model


def classifier_name(encoder: str) -> str:
    """What timm calls the classifier of an encoder, if it has one."""
    return BASELINES.get(encoder, encoder.removeprefix("timm/"))


@torch.no_grad()
def _auxiliary(plain: ImageClassifier, part_classes: Sequence[int], image_size: int) -> AuxiliaryClassifier:
    """The classifier with heads for parts, whose layers are known to return the maps that these heads read."""
    model = AuxiliaryClassifier(plain, part_classes).eval()
    model.forward_parts(torch.zeros(1, model.in_channels, image_size, image_size, device=model.mean.device))
    return model.train()


@torch.no_grad()
def produces(model: nn.Module, num_classes: int, in_channels: int, image_size: int) -> bool:
    """Whether a model in eval mode answers an image with ``num_classes`` logits."""
    training = model.training
    device = next(model.parameters()).device
    logits = model.eval()(torch.zeros(1, in_channels, image_size, image_size, device=device))
    model.train(training)
    return tuple(logits.shape) == (1, num_classes)
