"""The settings of the images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import field_validator, model_validator

from ..catalogue import DATA_SETS, sentences
from ..numerals import read_fold
from .values import Location, Number, Section, entry_of, named, setting

WITH_PARTS = [key for key, entry in DATA_SETS.items() if entry.facts.has_parts]
WITH_FOLDS = [key for key, entry in DATA_SETS.items() if entry.facts.takes_folds]


class DataSettings(Section):
    """Which images."""

    name: named("data") = setting(  # type: ignore[valid-type]
        f"The data set. {sentences('data')}. Or your own, as module:function.", default="digits"
    )
    options: dict[str, Any] | None = setting(
        "The arguments that your own data set takes beside its folder, such as '{year: 2024}'.", default=None
    )
    root: Location | None = setting(
        "The folder that holds the data set. The sets digits and synthetic-parts need none.", default=None
    )
    download: bool = setting("Download the data set into data.root if it is not there.", default=False)
    validation: Number = setting(
        "The share of the training images that is set aside for validation, where the data set has no validation split "
        "of its own. 0: train on all of them. Nothing is validated then, and the best weights are the last.",
        default=0.1,
        ge=0,
        lt=1,
    )
    fold: str | None = setting(
        "K/N, such as 1/5: judge on the K-th of N folds. All images of the folder are pooled and dealt to N folds by "
        "photograph, so that N runs judge every image once. What is not judged is for training and data.validation.",
        default=None,
    )
    limit: int | None = setting(
        "Train on this many images only, with the same share of each class. The default is all of them.",
        default=None,
        ge=1,
    )
    size: int | None = setting(
        "The side in pixels to which images are resized and cropped. In training the default is the size of the "
        "images as they are, and in an evaluation the size that the model takes.",
        default=None,
        ge=8,
    )
    split_of: Location | None = setting(
        "A run folder. The model is judged on the same images as that run: its data set, size and split. So two models "
        "compare, such as one before and after adversarial training.",
        default=None,
    )
    channels: Literal[1, 3] | None = setting(
        "Read the images of a folder as grey (1) or in colour (3). The default is in colour.", default=None
    )
    crop: Literal["padded", "resized"] = setting(
        "How training images are cropped at random. padded: after each side is padded by data.padding pixels. "
        "resized: a region of 8 to 100 % of the image, resized to its full size.",
        default="padded",
    )
    padding: int = setting(
        "The pixels to pad on each side before a random crop. 0: no crops.", default=4, ge=0
    )
    flip: bool = setting("Flip training images horizontally at random.", default=True)
    workers: int | None = setting(
        "How many processes read images ahead that do not fit into memory. 0: threads of the process that trains. The "
        "default is one for each processor that the process may use, where images go to a GPU or come from a program's "
        "own data set, and else 0. Images and their order do not depend on it.",
        default=None,
        ge=0,
        le=256,
    )
    class_map: Location | dict[str, Any] | None = setting(
        "For a model that was trained on other classes: which of its outputs answers each class of the images. Write "
        "{class folder: name or index of an output, a list of these, or null to leave the class out}, or name a JSON "
        "file that holds this. '*' stands for all other classes.",
        default=None,
    )
    labels: Literal["parts", "boxes", "centroids", "objects", "foreground"] = setting(
        "How much training is told about the parts of objects. parts: their masks. boxes: the filled box around each "
        "part. centroids: one pixel of each part. objects: one label for all parts of a class. foreground: one label "
        "for all parts of all classes.",
        default="parts",
    )
    labelled: Number = setting(
        "The share of the annotated training images whose part labels are used. It is the same in each class.",
        default=1,
        gt=0,
        le=1,
    )

    parts_min_share: Number = setting(
        "Parts that cover less than this share of the annotated pixels of their class become background. The training "
        "images decide, and a run keeps to what they decided. 0: all parts stay.",
        default=0,
        ge=0,
        le=1,
    )

    crop_to_parts: Number | None = setting(
        "Crop each annotated image to the square around its parts, with a margin on each side of this share of its "
        "side, such as 0.2. Images are cropped for judging as well, so their annotation is used there. The default is "
        "the whole image.",
        default=None,
        ge=0,
    )
    shift: Literal["none", "backgrounds", "textures"] = setting(
        "Judge on changed images, which are made with the part masks. backgrounds: each object stands before the "
        "background of an image of another class. textures: each object is covered with the surface of one.",
        default="none",
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _as_a_number(cls, value: object) -> object:
        """On the command line every value is text."""
        return int(value) if value in ("1", "3") else value

    @field_validator("fold")
    @classmethod
    def _one_of_n(cls, fold: str | None) -> str | None:
        return None if fold is None else "{}/{}".format(*read_fold(fold))

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
        if not entry.facts.crops_to_parts:
            self.without_effect("crop_to_parts", reason=f"with data.name {self.name}: it is for parts")
        if not entry.facts.takes_folds:
            self.without_effect(
                "fold", reason=f"with data.name {self.name}: it is for {' and '.join(WITH_FOLDS)}"
            )
        if self.name not in WITH_PARTS:
            reason = f"with data.name {self.name}, which has no parts: it is for {' and '.join(WITH_PARTS)}"
            self.without_effect("labels", "labelled", "parts_min_share", "shift", reason=reason)
        return self
