"""The settings of data, model and training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from .values import Duration, Location, Number, RadiusOrAuto, Section, readable, setting

WITH_PARTS = ("parts", "synthetic-parts")  # data sets with part masks


class Data(Section):
    """Which images."""

    name: Literal["digits", "cifar10", "svhn", "tiny-imagenet", "folder", "parts", "synthetic-parts"] = (
        setting(
            "data set; parts: images with part masks in one folder format (docs/parts-data.md)",
            default="digits",
        )
    )
    root: Location | None = setting(
        "folder that holds the data set; digits and synthetic-parts need none", default=None
    )
    download: bool = setting("fetch the data set into root if it is not there", default=False)
    validation: Number = setting(
        "share of the training images kept for validation, where the data set has no validation split of its own",
        default=0.1,
        gt=0,
        lt=1,
    )
    limit: int | None = setting(
        "use only this many training images, the same share of each class", default=None, ge=1
    )
    size: int | None = setting("side in pixels that images are resized and cropped to", default=None, ge=8)
    crop: Literal["padded", "resized"] = setting(
        "padded: random crops after padding; resized: a random region of 8 to 100 % of the image, resized",
        default="padded",
    )
    padding: int = setting("random crops after padding by this many pixels; 0: no crops", default=4, ge=0)
    flip: bool = setting("random horizontal flips", default=True)
    class_map: Location | dict[str, Any] | None = setting(
        "for a model that was trained on other classes: {class folder: name or index of an output of the model, a list "
        "of these, or null to leave the class out}, or a JSON file that holds this; '*' stands for all other classes",
        default=None,
    )
    labels: Literal["parts", "boxes", "centroids", "objects", "foreground"] = setting(
        "what is known of the parts: parts: their masks; boxes: each part's filled box; centroids: one pixel per part; "
        "objects: one label for all parts of a class; foreground: one label for everything",
        default="parts",
    )
    labelled: Number = setting(
        "share of the annotated training images that keep their part labels, the same in each class",
        default=1,
        gt=0,
        le=1,
    )

    shift: Literal["none", "backgrounds", "textures"] = setting(
        "judge on changed images, made of the part masks: each object before the background, or covered with the "
        "surface, of an image of another class",
        default="none",
    )

    @field_validator("class_map", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        """A folder may be called 0, which YAML takes for a number."""
        if isinstance(value, Mapping):
            return {str(name): answer for name, answer in value.items()}
        if not isinstance(value, str | Path | None):
            raise ValueError(
                f"data.class_map {value}: expected {{class folder: output}}, or a JSON file that holds it"
            )
        return value

    @model_validator(mode="after")
    def _every_setting_counts(self) -> "Data":
        if self.crop == "resized" and self.padding:
            self.without_effect("padding", reason="with data.crop resized: set it to 0")
        if self.name not in WITH_PARTS:
            reason = f"with data.name {self.name}, which has no parts: it is for {' and '.join(WITH_PARTS)}"
            self.without_effect("labels", "labelled", "shift", reason=reason)
        return self


class Model(Section):
    """Which network."""

    name: str = setting(
        "resnet18, preact-resnet18, wrn-D-K such as wrn-28-10, or timm/NAME; for images with annotated parts also "
        "parts/downsampled, parts/bounding-box, parts/two-headed, parts/pixel, and parts/baseline, the plain "
        "classifier of the same encoder",
        default="resnet18",
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
        return self.name.startswith("parts/") and self.name != "parts/baseline"

    def part_options(self) -> dict[str, object]:
        """The settings of a part model that its kind has, by name."""
        return {name: getattr(self, name) for name in _part_settings(self.name)}

    @model_validator(mode="after")
    def _has_these_options(self) -> "Model":
        others = [name for name in PART_SETTINGS if name not in _part_settings(self.name)]
        self.without_effect(*others, reason=f"with model.name {self.name}")
        return self


# Settings of part models, and the only kind that has each; "": every kind.
PART_SETTINGS = {
    "encoder": "", "decoder": "", "depth": "", "output_stride": "", "resolution": "",
    "pool": "downsampled", "background": "downsampled", "see_image": "downsampled", "branch": "two-headed",
}  # fmt: skip


def _part_settings(model: str) -> list[str]:
    """Those that a model has."""
    if not model.startswith("parts/"):
        return []
    kind = model.removeprefix("parts/")
    return ["encoder"] if kind == "baseline" else [k for k, v in PART_SETTINGS.items() if v in ("", kind)]


class Attack(Section):
    """The attack inside adversarial training, and the budget of every evaluation."""

    norm: Literal["linf", "l2", "l1"] = setting("norm of the budget", default="linf")
    eps: Number = setting("radius; images lie in [0, 1], so 8/255 and not 8 for linf", default=8 / 255, ge=0)
    generation: Literal["pgd", "minimum-margin"] = setting(
        "how methods at and part make their adversarial examples: PGD on cross-entropy, or PGD towards each of several "
        "likely wrong classes, of which the one that comes closest counts (MMA)",
        default="pgd",
    )
    targets: int = setting(
        "minimum-margin: wrong classes, the likeliest of the clean image first", default=3, ge=1
    )
    steps: int = setting("PGD steps in training, towards each target", default=10, ge=1)
    step_size: Number | None = setting("PGD step; default 2.5 eps / steps", default=None, gt=0)

    @model_validator(mode="after")
    def _targets_count(self) -> "Attack":
        if self.generation == "pgd":
            self.without_effect("targets", reason="with attack.generation pgd: it is for minimum-margin")
        return self

    @model_validator(mode="after")
    def _radius_in_range(self) -> "Attack":
        for key, value in (("eps", self.eps), ("step_size", self.step_size or 0)):
            if self.norm == "linf" and value > 1:
                raise ValueError(
                    f"attack.{key} {value:g} exceeds the image range [0, 1]. Did you mean {value:g}/255?"
                )
        return self


SAME_FOR_ALL = ("quadrant", "centre")  # masks that are one plane for all images
OF_PARTS = ("predicted-parts", "annotated-parts")
MAPLESS = (*SAME_FOR_ALL, "file", *OF_PARTS)  # masks that look at no map


class Part(Section):
    """Pixel-reweighted budgets (methods part, part-t and part-m)."""

    eps_low: RadiusOrAuto = setting(
        "radius of the pixels that matter less; at most eps. auto: from eps in eighths, an epoch each, down while the "
        "attack on the validation images loses less than they can tell by it, else up; a second validation attack an "
        "epoch",
        default=7 / 255,
    )
    mask: Literal[
        "paper",
        "quantile",
        "soft",
        "mean-preserving",
        "quadrant",
        "centre",
        "file",
        "published-code",
        "predicted-parts",
        "annotated-parts",
    ] = setting(
        "paper: eps where the standardised map exceeds 1, eps_low elsewhere; quantile: eps on the same number of "
        "pixels in every image; soft: the radius grows with the pixel's rank; mean-preserving: top pixels above "
        "eps, so that the mean is eps; quadrant, centre: no map; file: your own masks, of part.masks; "
        "published-code: per colour channel, as the paper's code does (it also gives images each other's masks: "
        "control shuffled); predicted-parts: eps where a part model sees the object; annotated-parts: eps where the "
        "data say that it is",
        default="paper",
    )
    masks: Location | None = setting(
        "mask file: folder of your masks, an 8-bit grey PNG per image (0: eps_low, 255: eps) named as the image is: "
        "train/cat/7.png for train/cat/7.jpg of the data set, train/00012.png for row 12 where it has no files; an "
        "image without one gets eps everywhere",
        default=None,
    )
    quantile: Number = setting(
        "share of important pixels in masks quantile, mean-preserving and centre", default=0.25, gt=0, lt=1
    )
    quadrant: Literal["upper-left", "upper-right", "lower-left", "lower-right"] = setting(
        "the quarter of the image that mask quadrant gives eps_low", default="upper-left"
    )
    control: Literal["none", "uniform", "shuffled", "random", "inverse"] = setting(
        "what is done to the mask, so that a claim can be read: uniform: each image's radius is the mean of its mask; "
        "shuffled: the next image's mask (within a process); random: radii on random pixels; "
        "inverse: the important pixels get the smaller radius",
        default="none",
    )
    map: Literal["grad-cam", "xgrad-cam", "layer-cam", "attention-rollout", "attention-gradient"] = setting(
        "which map: a class activation map (before pooling and a linear layer, grad-cam and xgrad-cam are the same), "
        "or, of vision transformers, attention rollout or attention weighted by its gradient",
        default="grad-cam",
    )
    layer: str | None = setting(
        "draw the class activation map at the output of this module, such as layer3 or blocks.8; default: at what "
        "enters the head",
        default=None,
    )
    mask_from: Literal["start", "clean"] | None = setting(
        "take the map from the attack's own first pass, or from a pass on the clean image; default: start, and clean "
        "for part-t and attack.generation minimum-margin, which make that pass anyway",
        default=None,
    )
    map_class: Literal["true", "predicted", "margin"] = setting(
        "class that the map explains; margin: the true class against the best other", default="true"
    )
    refresh_epochs: int | None = setting(
        "recompute maps every so many epochs and store them by sample; default: every step",
        default=None,
        ge=1,
    )
    burn_in: Number = setting(
        "share of the epochs with the full budget before masks begin", default=0.25, ge=0, le=1
    )

    @model_validator(mode="after")
    def _a_search_can_draw_masks(self) -> "Part":
        if self.eps_low == "auto" and self.mask in ("file", "annotated-parts"):
            raise ValueError(
                f"part.eps_low auto draws masks on validation images, and part.mask {self.mask} gives those without "
                "one the full radius: give a number, or take another mask"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_counts(self) -> "Part":
        idle = []
        if self.mask in MAPLESS:
            idle = ["map", "layer", "map_class", "refresh_epochs"]
            looks = self.mask == "predicted-parts"
            idle += (
                ["mask_from"] if self.mask_from == "clean" and not looks else []
            )  # start is what recipes say
            if self.control == "shuffled" and self.mask in SAME_FOR_ALL:
                raise ValueError(
                    f"part.control shuffled: all images share one plane under part.mask {self.mask}"
                )
        if self.mask not in ("quantile", "mean-preserving", "centre"):
            idle.append("quantile")
        if self.mask != "quadrant":
            idle.append("quadrant")
        if self.mask != "file":
            idle.append("masks")
        elif self.masks is None:
            raise ValueError("part.mask file needs the folder of your masks: part.masks DIR")
        whole = ["layer"] if self.attention else []  # such maps run through all blocks
        classless = ["map_class"] if self.map == "attention-rollout" else []
        self.without_effect(*idle, reason=f"with part.mask {self.mask}")
        self.without_effect(*whole, *classless, reason=f"with part.map {self.map}")
        return self

    @property
    def attention(self) -> bool:
        """Whether the map is one of attention."""
        return self.map.startswith("attention-")


class Optimizer(Section):
    """SGD with momentum."""

    lr: Number = setting("peak learning rate", default=0.01, gt=0)
    momentum: Number = setting("momentum", default=0.9, ge=0, lt=1)
    nesterov: bool = setting("Nesterov momentum", default=False)
    weight_decay: Number = setting("weight decay of matrices and kernels", default=2e-4, ge=0)
    decay_norm: bool = setting(
        "decay biases and normalisation parameters as well, as the papers do", default=True
    )
    no_decay: tuple[str, ...] = setting(
        "no weight decay of parameters whose name contains one of these, such as bias,bn,ln", default=()
    )
    schedule: Literal["piecewise", "cosine", "constant"] = setting(
        "learning-rate schedule; train.clean_epochs have one of their own", default="piecewise"
    )
    milestones: tuple[Number, ...] = setting(
        "piecewise: shares of the epochs after which the rate is multiplied by gamma", default=(0.75,)
    )
    gamma: Number = setting("piecewise: factor at each milestone", default=0.1, gt=0, le=1)
    warmup_epochs: Number = setting("linear rise of the rate at the start", default=0, ge=0)
    clip_norm: Number | None = setting("clip the gradient's norm to this; default: off", default=None, gt=0)

    @model_validator(mode="after")
    def _milestones_rise(self) -> "Optimizer":
        if any(not 0 < m <= 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            shown = ", ".join(map(readable, self.milestones))
            raise ValueError(f"optimizer.milestones {shown} must rise within (0, 1]: shares of the epochs")
        if self.schedule != "piecewise":
            reason = f"with optimizer.schedule {self.schedule}: it is for piecewise"
            self.without_effect("milestones", "gamma", reason=reason)
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum > 0")
        return self

    @field_validator("milestones", "no_decay", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """From the command line: 0.5,0.75."""
        return value.split(",") if isinstance(value, str) else value

    @field_validator("no_decay")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("optimizer.no_decay has an empty part of a name, which every name contains")
        return value


class Train(Section):
    """How to train."""

    method: Literal["clean", "at", "trades", "mart", "part", "part-t", "part-m"] = setting(
        "clean, adversarial (AT, TRADES, MART), or one of these three under a pixel-reweighted budget",
        default="at",
    )
    beta: Number = setting("TRADES and MART: weight of the robust term", default=6, ge=0)
    bn_batches: Literal["separate", "joint"] = setting(
        "TRADES and MART: clean and attacked images pass batch norm each by themselves, or as one batch",
        default="separate",
    )
    c_seg: Number | None = setting(
        "part models: weight of the loss of parts, 1 - c_seg being that of the classes; default: 0.5",
        default=None,
        ge=0,
        le=1,
    )
    part_loss: Literal["segmentation", "centroids", "centroids-published"] = setting(
        "part models: cross-entropy of each pixel's part, or centres and masses of the parts alone; "
        "centroids-published: with the weights of the published code",
        default="segmentation",
    )
    label_smoothing: Number = setting(
        "share of each label that is spread evenly over all classes, in the cross-entropy of training (0.1 is common)",
        default=0,
        ge=0,
        lt=1,
    )
    epochs: int = setting("passes over the training images", default=80, ge=1)
    clean_epochs: int = setting(
        "passes without an attack before these, as a first phase of the run", default=0, ge=0
    )
    batch_size: int = setting("images per step, over all processes", default=128, ge=1)
    precision: Literal["auto", "float32", "bf16"] = setting(
        "arithmetic of training and of the attack inside it; float32 means that, not TF32; "
        "auto: bf16 where the hardware is built for it",
        default="auto",
    )
    compile: bool = setting("compile the inference view (worth it on CUDA)", default=False)
    ema: Number | None = setting(
        "decay of averaged weights, such as 0.995; default: off", default=None, gt=0, lt=1
    )
    awp: Number = setting(
        "adversarial weight perturbation: take each step's gradient where every kernel and matrix has moved by this "
        "share of its norm to raise the loss (5e-3 in the paper); costs one more pass; 0: off",
        default=0,
        ge=0,
        lt=1,
    )
    awp_warmup: int = setting("epochs without weight perturbation at the start", default=0, ge=0)
    validation_steps: int = setting("PGD steps of the validation after each epoch", default=10, ge=1)
    validation_n: int | None = setting("validate on this many images; default: all", default=None, ge=1)
    checkpoint_every: Duration = setting("seconds between checkpoints within an epoch", default=300, gt=0)
    stop_after: Duration | None = setting(
        "stop training cleanly at a checkpoint after this time (9m, 2h), all --seeds together; "
        "the same command continues",
        default=None,
        gt=0,
    )

    @property
    def masked(self) -> bool:
        """Whether budgets are pixel-reweighted."""
        return self.method.startswith("part")

    @property
    def all_epochs(self) -> int:
        """Passes over the training images in all phases together."""
        return self.clean_epochs + self.epochs

    @model_validator(mode="after")
    def _has_these_terms(self) -> "Train":
        if self.method not in ("trades", "mart", "part-t", "part-m"):
            reason = f"with method {self.method}: it is for TRADES and MART"
            self.without_effect("beta", "bn_batches", reason=reason)
        return self

    @model_validator(mode="after")
    def _clean_comes_before_attacks(self) -> "Train":
        if self.clean_epochs and self.method == "clean":
            raise ValueError(
                f"train.clean_epochs {self.clean_epochs} has no effect with method clean: all epochs are"
            )
        return self

    @model_validator(mode="after")
    def _awp_begins(self) -> "Train":
        if not self.awp:
            self.without_effect("awp_warmup", reason="without train.awp, such as 5e-3")
        if self.awp and self.awp_warmup >= self.all_epochs:
            raise ValueError(
                f"train.awp_warmup {self.awp_warmup} leaves none of {self.all_epochs} epochs to train.awp"
            )
        return self
