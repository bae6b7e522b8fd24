"""The settings of the network, part models included."""

from typing import Any, Literal

from pydantic import model_validator

from ..catalogue import MODELS, is_users_code, sentences
from .values import Section, setting


class ModelSettings(Section):
    """Which network."""

    name: str = setting(
        f"The network. {sentences('models')}. Or your own, as module:function.", default="resnet18"
    )
    options: dict[str, Any] | None = setting(
        "The arguments that your own network takes beside the number of classes, the channels and the size of the "
        "images, such as '{depth: 3}'.",
        default=None,
    )
    width: int | None = setting(
        "The number of channels of the first stage. The default is 64 for resnet18 and 16 K for wrn-D-K.",
        default=None,
        ge=1,
    )
    patch_size: int | None = setting(
        "The side in pixels of the patches of a timm transformer, such as 4 for images of 32 pixels. The default is "
        "the published size.",
        default=None,
        ge=1,
    )
    pretrained: bool = setting(
        "Start from the pretrained weights that timm offers. In a part model, the encoder alone starts from them.",
        default=False,
    )
    init: str | None = setting(
        "Start from these weights: a run folder, a .safetensors file, or a state dict in a .pt or .pth file. A head "
        "for another number of classes is replaced by a new one.",
        default=None,
    )
    encoder_init: str | None = setting(
        "For part models and parts/baseline: start the encoder alone from these weights: a classifier or encoder with "
        "the names of timm or torchvision, as a .safetensors, .pt or .pth file, or a run folder. The head of a "
        "classifier is left out.",
        default=None,
    )
    normalisation: Literal["none", "half", "cifar10", "cifar100", "imagenet"] | None = setting(
        "For ARCHITECTURE@WEIGHTS: the normalisation that the network was trained with, where its file does not say. "
        "half: mean and standard deviation 0.5.",
        default=None,
    )
    encoder: str = setting(
        "For part models: the network that computes features. A name of segmentation-models-pytorch, such as resnet50, "
        "resnext50_32x4d or efficientnet-b4, or timm/NAME.",
        default="resnet50",
    )
    decoder: Literal[
        "deeplabv3plus", "deeplabv3", "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "upernet",
        "segformer", "dpt",
    ] = setting(
        "For part models: the network that makes part maps of the encoder's features.", default="deeplabv3plus"
    )  # fmt: skip
    depth: int | None = setting(
        "For part models: the number of stages of the encoder that are used. The default is the decoder's choice, "
        "mostly 5.",
        default=None,
        ge=2,
        le=5,
    )
    output_stride: int | None = setting(
        "For part models with decoder deeplabv3, deeplabv3plus or pan: the side in pixels, 8 or 16, of a cell of the "
        "encoder's last map. The default is the decoder's choice, 16 for deeplabv3plus.",
        default=None,
        ge=8,
        le=16,
        multiple_of=8,
    )
    resolution: Literal["own", "full"] = setting(
        "For part models: the resolution at which features and losses of parts are computed. own: that of the "
        "segmenter's output. full: that of the images, as published.",
        default="own",
    )
    pool: int = setting(
        "For parts/downsampled: the side of the grid to which part maps are averaged.",
        default=4,
        ge=1,
        le=128,
    )
    background: bool = setting(
        "For parts/downsampled: the head reads the map of the background as well.", default=True
    )
    see_image: bool = setting("For parts/downsampled: the head reads the image as well.", default=False)
    branch: Literal["decoder", "encoder"] = setting(
        "For parts/two-headed: whose features the second head reads.", default="decoder"
    )

    @property
    def segments(self) -> bool:
        """Whether it is a part model."""
        return self.name in MODELS and MODELS[self.name].facts.predicts_parts

    @property
    def reads_parts(self) -> bool:
        """Whether it is a part model whose class follows from part logits alone."""
        return self.name in MODELS and MODELS[self.name].facts.reads_parts and not self.see_image

    def part_options(self) -> dict[str, object]:
        """The settings of a part model that its kind has, by name."""
        return {name: getattr(self, name) for name in _part_settings(self.name)}

    @model_validator(mode="after")
    def _starts_once(self) -> "ModelSettings":
        if not self.name.startswith("parts/"):
            self.without_effect("encoder_init", reason=f"with model.name {self.name}: use model.init")
        elif self.init is not None:
            self.without_effect("encoder_init", reason="with model.init, which starts the whole network")
        return self

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
