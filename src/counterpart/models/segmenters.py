"""Segmenters of segmentation-models-pytorch: an encoder, a decoder and a convolution to one map per part."""

from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError, nearest
from . import backbones

DECODERS = tuple(smp.MODEL_ARCHITECTURES_MAPPING)
STRIDED = ("deeplabv3", "deeplabv3plus", "pan")  # decoders whose encoder may be dilated
# Of ImageNet, for every encoder that is not timm's.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Segmented(NamedTuple):
    """A segmenter's prediction: part logits at the decoder's own resolution, and the features they were made from."""

    part_logits: Tensor
    decoded: Tensor
    encoded: Tensor


class Segmenter(nn.Module):
    """``normalised images (B, C, H, W) -> Segmented``, with P + 1 maps, channel 0 being the background.

    DeepLabv3+ (Chen et al. 2018, arXiv 1802.02611) by default. The maps are the decoder's own, not enlarged.

    Args:
        channels: the number of maps, P + 1.
        encoder: a name of segmentation-models-pytorch, or ``timm/NAME``.
        decoder: one of ``DECODERS``.
        depth: the number of stages of the encoder; by default the decoder's.
        output_stride: the pixels per cell of the encoder's last map, 8 or 16; for decoders in ``STRIDED``.
        in_channels: the channels of the images.
        image_size: the side of the images, for encoders that are built for one size.
        pretrained: start from an encoder trained on ImageNet.

    Attributes:
        scale: the side of the images divided by that of the maps.
    """

    def __init__(
        self,
        channels: int,
        encoder: str = "resnet50",
        decoder: str = "deeplabv3plus",
        depth: int | None = None,
        output_stride: int | None = None,
        in_channels: int = 3,
        image_size: int = 224,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        net = _build(channels, encoder, decoder, depth, output_stride, in_channels, image_size, pretrained)
        self.encoder, self.decoder = net.encoder, net.decoder
        if decoder == "dpt":
            self.to_parts, self.scale = (
                net.segmentation_head.head,
                int(net.segmentation_head.upsampling_factor),
            )
        else:
            self.to_parts, enlarge = net.segmentation_head[0], net.segmentation_head[1]
            self.scale = int(getattr(enlarge, "scale_factor", 1))
        self._with_tokens = decoder == "dpt"
        self.stride = int(getattr(net.encoder, "output_stride", 1))
        if image_size % max(self.stride, self.scale):
            raise UserError(
                f"{decoder} on {encoder} takes images whose side is a multiple of {self.stride} pixels, "
                f"not {image_size}: choose another data.size."
            )

    @property
    def widths(self) -> tuple[int, int]:
        """The numbers of channels of ``decoded`` and of ``encoded``."""
        first = next(layer for layer in self.to_parts.modules() if isinstance(layer, nn.Conv2d))
        return first.in_channels, int(self.encoder.out_channels[-1])

    def forward(self, images: Float[Tensor, "b c h w"]) -> Segmented:
        """Predict the maps of the parts, and return the features of decoder and encoder as well."""
        features = self.encoder(images)
        decoded = self.decoder(*features) if self._with_tokens else self.decoder(features)
        encoded = features[0][-1] if self._with_tokens else features[-1]
        return Segmented(self.to_parts(decoded), decoded, encoded)


def statistics(encoder: str, in_channels: int) -> tuple[list[float], list[float]]:
    """The mean and standard deviation of each channel of what an encoder was trained to see."""
    mean, std = MEAN, STD
    if encoder.startswith("timm/"):
        way = backbones.preprocessing(encoder)
        mean, std = way.mean[:3], way.std[:3]  # type: ignore[assignment]
    if in_channels != len(mean):
        return [sum(mean) / len(mean)] * in_channels, [sum(std) / len(std)] * in_channels
    return list(mean), list(std)


def _build(
    channels: int,
    encoder: str,
    decoder: str,
    depth: int | None,
    output_stride: int | None,
    in_channels: int,
    image_size: int,
    pretrained: bool,
) -> Any:
    if decoder not in DECODERS:
        raise UserError(f"no decoder is called {decoder!r}. {nearest(decoder, DECODERS)}")
    name = encoder
    options: dict[str, Any] = {} if depth is None else {"encoder_depth": depth}
    weights: str | bool | None = "imagenet" if pretrained else None
    if encoder.startswith("timm/"):
        config = backbones.pretrained_config(encoder)
        name = encoder.replace("timm/", "tu-", 1)
        weights = True if pretrained else None
        if config.get("fixed_input_size"):  # only such networks know the option
            options["img_size"] = image_size
    elif encoder not in smp.encoders.get_encoder_names():
        raise UserError(
            f"no encoder is called {encoder!r}. {nearest(encoder, smp.encoders.get_encoder_names())} "
            "Or name any network of timm as timm/NAME."
        )
    if output_stride is not None:
        if decoder not in STRIDED:
            raise UserError(f"decoder {decoder} has no output stride: it is for {', '.join(STRIDED)}.")
        options["encoder_output_stride"] = output_stride
    try:
        return smp.create_model(
            decoder,
            encoder_name=name,
            encoder_weights=weights,
            in_channels=in_channels,
            classes=channels,
            **options,
        )
    except Exception as error:  # timm, the hub and the decoders raise whatever does not suit them
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].removesuffix(".")
        advice = ". From weights on the disk: --model.encoder-init FILE." if pretrained else "."
        raise UserError(f"cannot build {decoder} on {encoder}: {reason}{advice}") from error
