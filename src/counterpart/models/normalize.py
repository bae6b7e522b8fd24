"""A classifier of images in [0, 1]: normalisation, backbone and head in one module."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Backbone(Protocol):
    """A network in two halves, trunk and head, as all of ours and all of timm's are."""

    def forward_features(self, images: Tensor) -> Tensor:
        """What enters the head: maps (B, A, h, w), or tokens (B, N, A)."""
        ...

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        ...

    def get_classifier(self) -> nn.Module:
        """The final layer."""
        ...


class ImageClassifier(nn.Module):
    """``images (B, C, H, W) in [0, 1] -> logits (B, K)``.

    Args:
        backbone: a network that sees normalised images.
        num_classes: K.
        in_channels: C.
        mean: one value per channel, subtracted from the images. None: 0.
        std: one value per channel, by which they are divided then. None: 1.
    """

    backbone: Backbone
    mean: Tensor
    std: Tensor
    described: Mapping[str, Any] | None = (
        None  # the arguments of ``models.create`` that make it, where these are known
    )

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.register_buffer("mean", _per_channel(mean, in_channels, 0.0))
        self.register_buffer("std", _per_channel(std, in_channels, 1.0))
        self._channels_last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"  # timm's Swin and its kind

    def normalise(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Subtract the mean from the images, and divide them by the standard deviation."""
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f"the model takes images of {self.in_channels} channels, got {images.shape[1]}: "
                f"images have shape {tuple(images.shape)}."
            )
        return (images - self.mean) / self.std

    def as_maps(self, output: Tensor) -> Tensor:
        """The output of the backbone with channels second, if it has channels and places."""
        return output.permute(0, 3, 1, 2) if self._channels_last else output

    def forward_features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b ..."]:
        """What enters the head: (B, A, h, w) of a convolutional network, (B, N, A) of a transformer."""
        return self.as_maps(self.backbone.forward_features(self.normalise(images)))

    def forward_head(self, features: Float[Tensor, "b ..."]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.answer(features.permute(0, 2, 3, 1) if self._channels_last else features)

    def answer(self, output: Any) -> Float[Tensor, "b k"]:
        """The logits of what the backbone returned, in the layout of the backbone."""
        return self.backbone.forward_head(output)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Logits."""
        return self.answer(self.backbone.forward_features(self.normalise(images)))

    def get_classifier(self) -> nn.Module:
        """The final layer: an ``nn.Linear`` in all but a few timm networks."""
        return self.backbone.get_classifier()

    def encoder_tensors(self) -> dict[str, Tensor]:
        """The parameters and buffers of the encoder by name: those of the backbone, less its final layer."""
        head = {id(parameter) for parameter in self.get_classifier().parameters()}
        return {
            name: tensor
            for name, tensor in self.state_dict(keep_vars=True).items()
            if name.startswith("backbone.") and id(tensor) not in head
        }

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters among ``encoder_tensors``, each of them once."""
        inside = self.encoder_tensors()
        return [parameter for name, parameter in self.named_parameters() if name in inside]


def description_of(model: nn.Module) -> Mapping[str, Any] | None:
    """The arguments of ``models.create`` that make a model; None where they are not known."""
    return model.described if isinstance(model, ImageClassifier) else None


def _per_channel(values: Sequence[float] | None, channels: int, default: float) -> Tensor:
    values = [default] * channels if values is None else list(values)
    if len(values) != channels:
        raise ValueError(f"mean and std need one value for each of {channels} channels, got {values}.")
    return torch.tensor(values).view(-1, 1, 1)
