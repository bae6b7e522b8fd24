"""What every section of the schema is made of: numbers as people write them, and settings with a meaning."""

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _fraction(value: object) -> object:
    """8/255 -> 0.0314; anything else is left to the type check."""
    match = re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", value) if isinstance(value, str) else None
    if match and float(match[2]) > 0:
        return float(match[1]) / float(match[2])
    return value


def _seconds(value: object) -> object:
    """9m -> 540.0; 90s, 2h and plain seconds as well."""
    match = re.fullmatch(r"\s*([\d.]+)\s*([smh]?)\s*", value) if isinstance(value, str) else None
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else value


def _number_or_auto(value: object) -> object:
    """ "auto", or a number of at least 0: one check, so that one problem is one sentence."""
    read = _fraction(value)
    if read == "auto":
        return read
    try:
        number = float(read)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(read, bool) or not 0 <= number < math.inf:
        raise PydanticCustomError("radius", "Input should be a number of at least 0, or auto")
    return number


Number = Annotated[float, BeforeValidator(_fraction)]
RadiusOrAuto = Annotated[float | Literal["auto"], BeforeValidator(_number_or_auto)]
Duration = Annotated[float, BeforeValidator(_seconds)]
Location = Annotated[Path, AfterValidator(Path.expanduser)]


def readable(number: float) -> str:
    """A number as people write it: 8/255 rather than 0.03137254901960784, 300 rather than 300.0."""
    count, text = round(number * 255), f"{number:g}"
    return (
        f"{count}/255" if float(text) != number and count / 255 == number else repr(number).removesuffix(".0")
    )


def setting(description: str, **limits: Any) -> Any:
    """A setting with its meaning, its default and its range."""
    return Field(description=description, **limits)


class Section(BaseModel):
    """A block of settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    def without_effect(self, *names: str, reason: str) -> None:
        """Refuse each of these settings that was given another value than its default.

        Raises:
            ValueError: what was given, and why it has no effect.
        """
        for name in names:
            value = getattr(self, name)
            if value == type(self).model_fields[name].default:
                continue
            shown = value if isinstance(value, tuple) else (value,)
            text = ",".join(readable(v) if isinstance(v, float) else str(v) for v in shown)
            text = text.lower() if isinstance(value, bool) else text
            section = type(self).__name__.removesuffix("Settings").lower()
            raise ValueError(f"{section}.{name} {text} has no effect {reason}")
