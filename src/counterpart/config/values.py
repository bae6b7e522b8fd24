"""What every section of the schema is made of: numbers as people write them, and settings with a meaning."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticCustomError

from ..catalogue import Entry, Option, find
from ..catalogue.attacks import EVERY_NORM, FREE_PIXELS
from ..errors import UserError, nearest
from ..numerals import as_fraction, readable


def _radii(value: object) -> object:
    """8/255, or several with commas or in a list: a number, or a tuple of numbers."""
    entries = value.split(",") if isinstance(value, str) and "," in value else value
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        return _read_radius(entries)
    radii = tuple(_read_radius(part) for part in entries)
    return radii[0] if len(radii) == 1 else radii


def _read_radius(value: object) -> float:
    read = as_fraction(value)
    try:
        number = math.nan if isinstance(read, bool) else float(read)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise PydanticCustomError(
            "radii", "Input should be a number of at least 0, or several with commas between them"
        )
    return number


def _norms(value: object) -> object:
    """linf, or several with commas or in a list: a name, or a tuple of different names."""
    entries = value.split(",") if isinstance(value, str) else value
    names = [str(name).strip() for name in entries] if isinstance(entries, Sequence) else []
    if not names or not set(names) <= {*EVERY_NORM, *FREE_PIXELS}:
        known = ", ".join((*EVERY_NORM, *FREE_PIXELS))
        raise PydanticCustomError(
            "norms", "Input should be one of {known}, or several with commas between them", {"known": known}
        )
    if len(set(names)) < len(names):
        raise PydanticCustomError("norms", "Each norm of a union should be named once")
    return names[0] if len(names) == 1 else tuple(names)


def in_seconds(value: object) -> object:
    """9m -> 540.0; 90s, 2h, 3d and plain seconds as well."""
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([smhd]?)\s*", value) if isinstance(value, str) else None
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else value


def _number_or_auto(value: object) -> object:
    """ "auto", or a number of at least 0: one check, so that one problem is one sentence."""
    read = as_fraction(value)
    if read == "auto":
        return read
    try:
        number = float(read)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(read, bool) or not 0 <= number < math.inf:
        raise PydanticCustomError("radius", "Input should be a number of at least 0, or auto")
    return number


def _count_or_auto(value: object) -> object:
    """ "auto", or a whole number of at least 1: one check, so that one problem is one sentence."""
    text = str(value).strip()
    if text == "auto":
        return text
    if isinstance(value, bool) or not text.isdigit() or int(text) < 1:
        raise PydanticCustomError("count", "Input should be a whole number of at least 1, or auto")
    return int(text)


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise PydanticCustomError(
            "no_user", "There is no user of that name, whose home it would be in"
        ) from None


Number = Annotated[float, BeforeValidator(as_fraction)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
RadiusOrAuto = Annotated[float | Literal["auto"], BeforeValidator(_number_or_auto)]
Radii = Annotated[float | tuple[float, ...], BeforeValidator(_radii)]
Norms = Annotated[str | tuple[str, ...], BeforeValidator(_norms)]
Duration = Annotated[float, BeforeValidator(in_seconds)]
Location = Annotated[Path, AfterValidator(_expand_home)]


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
            values = value if isinstance(value, tuple) else (value,)
            text = ",".join(readable(v) if isinstance(v, float) else str(v) for v in values)
            text = text.lower() if isinstance(value, bool) else text
            section = type(self).__name__.removesuffix("Settings").lower()
            raise ValueError(f"{section}.{name} {text} has no effect {reason}")


class OfKind:
    """Marks a setting whose value is a name of the catalogue, so that its help can list the names."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def named(kind: str) -> Any:
    """The type of a setting that takes a name of the catalogue."""

    def known(name: str) -> str:
        entry_of(kind, name)
        return name

    return Annotated[str, AfterValidator(known), OfKind(kind)]


def entry_of(kind: str, name: str) -> Entry[Any]:
    """The catalogue's entry of a name.

    Raises:
        PydanticCustomError: there is none.
    """
    try:
        return find(kind, name)
    except UserError as error:
        raise PydanticCustomError("unknown_name", "{reason}", {"reason": str(error)}) from None


def check_options(what: str, entry: Entry[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of an entry, read as the schema reads its settings: fractions, ranges and choices.

    Options of code that is not ours are left as they are; they are checked where it is called.

    Raises:
        ValueError: an option that it does not have, or a value out of range.
    """
    if not entry.inside:
        return dict(options)
    known = entry.defaults
    for name in options:
        if name not in known:
            has = f"It has: {', '.join(sorted(known))}" if known else "It has no options"
            close = nearest(name, known) if known else ""
            raise ValueError(f"{what} has no {name}. {close if close.startswith('Did') else has}")
    try:
        checked = _options_of(entry).model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        where, message = problem["loc"][0], problem["msg"]
        raise ValueError(f"{what}: {where} = {problem['input']}: {message[0].lower()}{message[1:]}") from None
    return {name: getattr(checked, name) for name in options}


@cache
def _options_of(entry: Entry[Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {
        option.name: (
            _type_of(option) | None,
            Field(default=None, ge=option.low, le=option.high, gt=option.above, lt=option.below),
        )
        for option in entry.options
    }
    return create_model(f"Options of {entry.key}", **fields)


def _type_of(option: Option) -> Any:
    if option.choices:
        return Literal[option.choices]
    return Number if option.type is float else option.type
