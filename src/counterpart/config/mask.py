"""The settings of budgets per pixel: the rule that draws masks, and the maps that they are drawn from."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from ..catalogue import MAPS, MASK_RULES, Entry, MaskFacts, sentences
from ..catalogue.masks import QUADRANTS
from .values import Location, Number, RadiusOrAuto, Section, entry_of, named, setting


class MaskSettings(Section):
    """Budgets that differ from pixel to pixel, for methods part, part-t and part-m and for mask-aware attacks."""

    eps_low: RadiusOrAuto = setting(
        "The radius of the pixels that matter less, at most attack.eps. auto: start at eps. After each epoch lower "
        "it by eps/8 if the masked attack fools at most one standard error fewer validation images than the full "
        "attack; otherwise raise it. This costs a second validation attack in each epoch.",
        default=7 / 255,
    )
    rule: named("masks") = setting(  # type: ignore[valid-type]
        f"The rule that turns a map into a radius for each pixel. {sentences('masks')}. Or your own, as "
        "module:function.",
        default="paper",
    )
    options: dict[str, Any] | None = setting(
        "The options that your own mask rule takes, such as '{threshold: 0.5}'.", default=None
    )
    files: Location | None = setting(
        "For mask.rule file: the folder of your masks. A mask is an 8-bit grey PNG, in which 0 stands for eps_low "
        "and 255 for eps. It is named like its image: train/cat/7.png for train/cat/7.jpg, or train/00012.png for "
        "row 12 of a data set without files. An image that has no mask gets eps everywhere.",
        default=None,
    )
    quantile: Number = setting(
        "For rules quantile, mean-preserving and centre: the share of the pixels that count as important.",
        default=0.25,
        gt=0,
        lt=1,
    )
    quadrant: Literal[QUADRANTS] = setting(  # type: ignore[valid-type]
        "For rule quadrant: the quarter of the image that gets eps_low.", default="upper-left"
    )
    projection: Literal["clamp", "multiply"] = setting(
        "How a step of training's attack keeps to the mask. clamp: each pixel is clamped to its radius, as in the "
        "paper's code. multiply: all pixels are clamped to eps and then multiplied by radius/eps, as section 3.2 of "
        "the paper prints it. Unimportant pixels then stay below eps_low unless a step is at least eps - eps_low "
        "long. Attacks of an evaluation always clamp.",
        default="clamp",
    )
    control: named("controls") = setting(  # type: ignore[valid-type]
        f"A control changes the mask in one respect, to test what an effect comes from. {sentences('controls')}.",
        default="none",
    )
    map: named("maps") = setting(  # type: ignore[valid-type]
        f"The map of important places that the rule reads. {sentences('maps')}.", default="grad-cam"
    )
    layer: str | None = setting(
        "The module at whose output a class activation map is drawn, such as layer3 or blocks.8. By default it is "
        "drawn from what enters the classification head.",
        default=None,
    )
    drawn_from: Literal["start", "clean"] | None = setting(
        "The image that the map is drawn on. start: the image that the attack starts from, in the attack's own first "
        "pass. clean: the clean image. The default is start, and clean for method part-t and attack.generation "
        "minimum-margin, which pass the clean image through the model anyway.",
        default=None,
    )
    map_class: Literal["true", "predicted", "margin"] = setting(
        "The class that the map explains. margin: the true class as opposed to the likeliest other class.",
        default="true",
    )
    refresh_epochs: int | None = setting(
        "Draw the map of each image anew after this many epochs, and store it between. By default it is drawn in every "
        "step.",
        default=None,
        ge=1,
    )
    burn_in: Number = setting(
        "The share of the epochs at the start in which every pixel has the full radius.",
        default=0.25,
        ge=0,
        le=1,
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

    def refuse_without_masks(self, method: str, *, attacked_under_masks: bool) -> None:
        """Refuse settings that were given for a training whose method draws no mask.

        Recipes and experiments say the radii and the burn-in of whole families of methods: these are no wish.

        Args:
            method: the method of the training.
            attacked_under_masks: whether an evaluation draws masks, so that all counts but what training alone reads.

        Raises:
            ValueError: what was given, and why it has no effect.
        """
        of_families = {"eps_low", "drawn_from", "burn_in"}
        of_training = {"projection", "refresh_epochs"}
        idle = of_training if attacked_under_masks else set(type(self).model_fields) - of_families
        self.without_effect(*sorted(idle), reason=f"with train.method {method}, which draws no mask")

    def _options_of_other_rules(self) -> list[str]:
        every = {option.setting or option.name for entry in MASK_RULES.values() for option in entry.options}
        taken = {option.setting or option.name for option in self.entry.options}
        idle = sorted(every - taken)
        idle += [] if self.rule == "file" else ["files"]
        return idle + (["options"] if self.entry.inside else [])
