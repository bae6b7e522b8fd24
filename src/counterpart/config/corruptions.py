"""The settings of an evaluation under common corruptions."""

from typing import Literal

from pydantic import field_validator, model_validator

from ..errors import nearest
from .values import Location, Section, setting

# The 15 of the benchmark, and the four that it keeps for validation.
BENCHMARK = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SETS = {"all": (*BENCHMARK, *EXTRA), "benchmark": BENCHMARK, "extra": EXTRA}


class CorruptionsSettings(Section):
    """Which corruptions, and where they come from."""

    names: tuple[str, ...] = setting(
        "The corruptions, with commas between them; or a set of them: all (19), benchmark (15 of these) or extra (the "
        "other 4).",
        default=SETS["all"],
    )
    severities: tuple[int, ...] = setting(
        "The severities to measure, from 1 to 5, with commas between them, such as 1,3,5.",
        default=(1, 2, 3, 4, 5),
    )
    published: bool = setting(
        "Follow the protocol of the PART paper's table: all 19 corruptions at severity 1, on the test images. The "
        "result compares with that table, and with nothing that was measured by another protocol.",
        default=False,
    )
    source: Location | None = setting(
        "A folder of the official .npy files of CIFAR-10-C. By default the images are corrupted here.",
        default=None,
    )
    frost: Location | None = setting(
        "A folder of the textures that the corruption frost needs (docs/datasets.md). Without it frost is left out, "
        "and a note says so.",
        default=None,
    )
    constants: Literal["cifar", "imagenet"] | None = setting(
        "Which strengths the severities stand for. cifar: those made for images of 32 pixels. imagenet: those made for "
        "224 pixels. The default is cifar up to 64 pixels a side, and imagenet above.",
        default=None,
    )

    @field_validator("names", "severities", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """From the command line: snow,fog or 1,3,5; sets of names by name."""
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            return [parts]
        return [
            name for part in parts for name in (SETS.get(part, (part,)) if isinstance(part, str) else (part,))
        ]

    @model_validator(mode="after")
    def _fits_together(self) -> "CorruptionsSettings":
        for name in self.names:
            if name not in SETS["all"]:
                hint = nearest(name, [*SETS["all"], *SETS])
                raise ValueError(f"corruptions.names: no corruption is called {name!r}. {hint}")
        for key, values in (("names", self.names), ("severities", self.severities)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"corruptions.{key} needs at least one, and each once")
        if not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise ValueError("corruptions.severities are 1 to 5")
        if self.published and (self.names != SETS["all"] or self.severities not in ((1, 2, 3, 4, 5), (1,))):
            raise ValueError(
                "corruptions.published means all 19 at severity 1: leave names and severities out"
            )
        for key in ("frost", "constants"):
            if self.source is not None and getattr(self, key) is not None:
                raise ValueError(
                    f"corruptions.{key} has no effect on the official files of corruptions.source"
                )
        return self

    @property
    def wanted(self) -> tuple[int, ...]:
        """The severities that are evaluated, ascending."""
        return (1,) if self.published else tuple(sorted(self.severities))
