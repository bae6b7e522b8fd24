"""The settings of the network, part models included."""

from typing import Any, Literal

from pydantic import model_validator

from ..catalogue import MODELS, is_users_code, sentences
from .values import Section, setting


class ModelSettings(Section):
    """Which network."""

    name: str = setting(
        f"which network. {sentences('models')}. Or your own, as module:function", default="resnet18"
    )
    options: dict[str, Any] | None = setting(
        "what your own network takes beside classes, channels and size of the images, such as '{depth: 3}'",
        default=None,
    )
    width: int | None = setting(
        "channels of the first stage (64 in resnet18, 16 K in wrn-D-K)", default=None, ge=1
    )
    patch_size: int | None = setting(
        "side in pixels of a timm transformer's patches, such as 4 for images of 32; default: as published",
        default=None,
        ge=1,
    )
    pretrained: bool = setting(
        "start from timm's pretrained weights; of a part model, the encoder alone", default=False
    )
    init: str | None = setting(
        "start from these weights (a run folder, .safetensors, or a state dict .pt/.pth); "
        "a head of another size is replaced",
        default=None,
    )
    normalisation: Literal["none", "half", "cifar10", "cifar100", "imagenet"] | None = setting(
        "for ARCHITECTURE@WEIGHTS: what the network was trained to see, where its file does not say",
        default=None,
    )
    encoder: str = setting(
        "parts/*: a name of segmentation-models-pytorch, such as resnet50, resnext50_32x4d or efficientnet-b4, or "
        "timm/NAME",
        default="resnet50",
    )
    decoder: Literal[
        "deeplabv3plus", "deeplabv3", "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "upernet",
        "segformer", "dpt",
    ] = setting("parts/*: how part maps are made of the encoder's features", default="deeplabv3plus")  # fmt: skip
    depth: int | None = setting(
        "parts/*: stages of the encoder that are used; default: the decoder's choice, mostly 5",
        default=None,
        ge=2,
        le=5,
    )
    output_stride: int | None = setting(
        "parts/*: pixels per cell of the encoder's last map, 8 or 16, for decoders deeplabv3, deeplabv3plus and pan; "
        "default: the decoder's choice, 16 for deeplabv3plus",
        default=None,
        ge=8,
        le=16,
        multiple_of=8,
    )
    resolution: Literal["own", "full"] = setting(
        "parts/*: features and losses of parts are computed at the segmenter's own resolution, or at the images', as "
        "published",
        default="own",
    )
    pool: int = setting(
        "parts/downsampled: side of the grid that part maps are averaged to", default=4, ge=1, le=128
    )
    background: bool = setting("parts/downsampled: the head sees the background's map as well", default=True)
    see_image: bool = setting("parts/downsampled: the head sees the image as well", default=False)
    branch: Literal["decoder", "encoder"] = setting(
        "parts/two-headed: whose features the second head reads", default="decoder"
    )

    @property
    def segments(self) -> bool:
        """Whether it is a part model."""
        return self.name in MODELS and MODELS[self.name].facts.predicts_parts

    def part_options(self) -> dict[str, object]:
        """The settings of a part model that its kind has, by name."""
        return {name: getattr(self, name) for name in _part_settings(self.name)}

    @model_validator(mode="after")
    def _has_these_options(self) -> "ModelSettings":
        others = [name for name in PART_SETTINGS if name not in _part_settings(self.name)]
        others += [] if is_users_code(self.name) else ["options"]
        self.without_effect(*others, reason=f"with model.name {self.name}")
        return self


# The settings that some part models have.
PART_SETTINGS = tuple(dict.fromkeys(name for entry in MODELS.values() for name in entry.facts.options))


def _part_settings(model: str) -> tuple[str, ...]:
    """Those that a model has; a name that is none here is refused where the network is made."""
    if model in MODELS:
        return MODELS[model].facts.options
    return PART_SETTINGS if model.startswith("parts/") else ()
