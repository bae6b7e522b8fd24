"""The settings of pixel-reweighted budgets: masks, and the maps that they are drawn from."""

from typing import Literal

from pydantic import model_validator

from .values import Location, Number, RadiusOrAuto, Section, setting

SAME_FOR_ALL = ("quadrant", "centre")  # masks that are one plane for all images
OF_PARTS = ("predicted-parts", "annotated-parts")
MAPLESS = (*SAME_FOR_ALL, "file", *OF_PARTS)  # masks that look at no map


class MaskSettings(Section):
    """Pixel-reweighted budgets (methods part, part-t and part-m)."""

    eps_low: RadiusOrAuto = setting(
        "radius of the pixels that matter less; at most eps. auto: from eps in eighths, an epoch each, down while the "
        "attack on the validation images loses less than they can tell by it, else up; a second validation attack an "
        "epoch",
        default=7 / 255,
    )
    rule: Literal[
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
        "eps, so that the mean is eps; quadrant, centre: no map; file: your own masks, of mask.files; "
        "published-code: per colour channel, as the paper's code does (it also gives images each other's masks: "
        "control shuffled); predicted-parts: eps where a part model sees the object; annotated-parts: eps where the "
        "data say that it is",
        default="paper",
    )
    files: Location | None = setting(
        "rule file: folder of your masks, an 8-bit grey PNG per image (0: eps_low, 255: eps) named as the image is: "
        "train/cat/7.png for train/cat/7.jpg of the data set, train/00012.png for row 12 where it has no files; an "
        "image without one gets eps everywhere",
        default=None,
    )
    quantile: Number = setting(
        "share of important pixels in rules quantile, mean-preserving and centre", default=0.25, gt=0, lt=1
    )
    quadrant: Literal["upper-left", "upper-right", "lower-left", "lower-right"] = setting(
        "the quarter of the image that rule quadrant gives eps_low", default="upper-left"
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
    drawn_from: Literal["start", "clean"] | None = setting(
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
    def _a_search_can_draw_masks(self) -> "MaskSettings":
        if self.eps_low == "auto" and self.rule in ("file", "annotated-parts"):
            raise ValueError(
                f"mask.eps_low auto draws masks on validation images, and mask.rule {self.rule} gives those without "
                "one the full radius: give a number, or take another mask"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_counts(self) -> "MaskSettings":
        idle = []
        if self.rule in MAPLESS:
            idle = ["map", "layer", "map_class", "refresh_epochs"]
            looks = self.rule == "predicted-parts"
            idle += (
                ["drawn_from"] if self.drawn_from == "clean" and not looks else []
            )  # start is what recipes say
            if self.control == "shuffled" and self.rule in SAME_FOR_ALL:
                raise ValueError(
                    f"mask.control shuffled: all images share one plane under mask.rule {self.rule}"
                )
        if self.rule not in ("quantile", "mean-preserving", "centre"):
            idle.append("quantile")
        if self.rule != "quadrant":
            idle.append("quadrant")
        if self.rule != "file":
            idle.append("files")
        elif self.files is None:
            raise ValueError("mask.rule file needs the folder of your masks: mask.files DIR")
        whole = ["layer"] if self.attention else []  # such maps run through all blocks
        classless = ["map_class"] if self.map == "attention-rollout" else []
        self.without_effect(*idle, reason=f"with mask.rule {self.rule}")
        self.without_effect(*whole, *classless, reason=f"with mask.map {self.map}")
        return self

    @property
    def attention(self) -> bool:
        """Whether the map is one of attention."""
        return self.map.startswith("attention-")
