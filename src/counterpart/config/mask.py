"""The settings of budgets per pixel: the rule that draws masks, and the maps that they are drawn from."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from ..catalogue import MAPS, MASK_RULES, Entry, MaskFacts, sentences
from ..catalogue.masks import QUADRANTS
from .values import Location, Number, RadiusOrAuto, Section, entry_of, named, setting


class MaskSettings(Section):
    """Budgets per pixel, for methods part, part-t and part-m and for mask-aware attacks."""

    eps_low: RadiusOrAuto = setting(
        "radius of the pixels that matter less; at most eps. auto: start at eps. After each epoch lower it by "
        "eps/8 if the "
        "masked attack fools at most one standard error fewer validation images than the full one; otherwise raise it. "
        "This costs a second validation attack an epoch",
        default=7 / 255,
    )
    rule: named("masks") = setting(  # type: ignore[valid-type]
        f"how a map becomes a radius for each pixel. {sentences('masks')}. Or your own, as module:function",
        default="paper",
    )
    options: dict[str, Any] | None = setting(
        "what your own mask rule takes beside its arguments, such as '{threshold: 0.5}'", default=None
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
    quadrant: Literal[QUADRANTS] = setting(  # type: ignore[valid-type]
        "the quarter of the image that rule quadrant gives eps_low", default="upper-left"
    )
    control: named("controls") = setting(  # type: ignore[valid-type]
        f"what is done to the mask, so that a claim can be read. {sentences('controls')}", default="none"
    )
    map: named("maps") = setting(  # type: ignore[valid-type]
        f"which map the rule looks at. {sentences('maps')}", default="grad-cam"
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

    @property
    def entry(self) -> Entry[MaskFacts]:
        """The rule's row of the catalogue."""
        return entry_of("masks", self.rule)

    @property
    def needs_map(self) -> bool:
        """Whether the rule looks at a map of the model."""
        return self.entry.facts.needs_map

    @property
    def attention(self) -> bool:
        """Whether the map is one of attention."""
        return MAPS[self.map].facts.of_attention

    @property
    def rule_options(self) -> Mapping[str, Any]:
        """What the rule takes: its options in the catalogue, or those of the user's own rule."""
        if not self.entry.inside:
            return self.options or {}
        return {option.name: getattr(self, option.setting or option.name) for option in self.entry.options}

    @model_validator(mode="after")
    def _a_search_can_draw_masks(self) -> "MaskSettings":
        if self.eps_low == "auto" and self.entry.facts.of_training_images:
            raise ValueError(
                f"mask.eps_low auto draws masks on validation images, and mask.rule {self.rule} gives those without "
                "one the full radius: give a number, or take another mask"
            )
        return self

    @model_validator(mode="after")
    def _every_setting_counts(self) -> "MaskSettings":
        facts = self.entry.facts
        idle = self._options_of_other_rules()
        if not facts.needs_map:
            idle += ["map", "layer", "map_class", "refresh_epochs"]
            if (
                self.drawn_from == "clean" and facts.parts != "predicted"
            ):  # recipes say start: that is no wish
                idle.append("drawn_from")
        if self.control == "shuffled" and facts.same_for_all:
            raise ValueError(f"mask.control shuffled: all images share one plane under mask.rule {self.rule}")
        if self.rule == "file" and self.files is None:
            raise ValueError("mask.rule file needs the folder of your masks: mask.files DIR")
        self.without_effect(*idle, reason=f"with mask.rule {self.rule}")
        whole = ["layer"] if self.attention else []  # such maps run through all blocks
        classless = [] if MAPS[self.map].facts.of_a_class else ["map_class"]
        self.without_effect(*whole, *classless, reason=f"with mask.map {self.map}")
        return self

    def _options_of_other_rules(self) -> list[str]:
        every = {option.setting or option.name for entry in MASK_RULES.values() for option in entry.options}
        taken = {option.setting or option.name for option in self.entry.options}
        idle = sorted(every - taken)
        idle += [] if self.rule == "file" else ["files"]
        return idle + (["options"] if self.entry.inside else [])
