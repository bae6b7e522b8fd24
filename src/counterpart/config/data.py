"""The settings of the images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from ..catalogue import DATA_SETS, sentences
from .values import Location, Number, Section, entry_of, named, setting

WITH_PARTS = [key for key, entry in DATA_SETS.items() if entry.facts.has_parts]


class DataSettings(Section):
    """Which images."""

    name: named("data") = setting(  # type: ignore[valid-type]
        f"data set. {sentences('data')}. Or your own, as module:function", default="digits"
    )
    options: dict[str, Any] | None = setting(
        "what your own data set takes beside its folder, such as '{year: 2024}'", default=None
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
    split_of: Location | None = setting(
        "judge on the images that this run is judged on: its data set, size and split, whatever model is judged",
        default=None,
    )
    channels: Literal[1, 3] | None = setting(
        "read the images of a folder as grey (1) or in colour (3); default: in colour", default=None
    )
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
    def _every_setting_counts(self) -> "DataSettings":
        if self.crop == "resized" and self.padding:
            self.without_effect("padding", reason="with data.crop resized: set it to 0")
        entry = entry_of("data", self.name)
        if not entry.inside:
            return self
        self.without_effect("options", reason=f"with data.name {self.name}: they are for your own data sets")
        if not entry.facts.takes_channels:
            self.without_effect("channels", reason=f"with data.name {self.name}: it is for folder")
        if self.name not in WITH_PARTS:
            reason = f"with data.name {self.name}, which has no parts: it is for {' and '.join(WITH_PARTS)}"
            self.without_effect("labels", "labelled", "shift", reason=reason)
        return self
