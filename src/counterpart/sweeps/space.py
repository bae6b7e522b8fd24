"""The space of a sweep: which settings vary, between which values, and what may not vary."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import NOT_IDENTITY, Config, nearest_key, plain, read_yaml, readable, resolve, settings
from ..dotted_names import nest, settings_in
from ..errors import UserError, nearest

if TYPE_CHECKING:
    from optuna import Trial

_FOLDER = Path(__file__).parent / "spaces"
MOST_CHECKED = 1000  # combinations of values that are tried on the schema before the first trial
# Settings of the training images alone. Any other of the section would change the images of the validation.
_OF_TRAINING_IMAGES = ("limit", "crop", "padding", "flip", "labels", "labelled", "parts_min_share")
_OF_VALIDATION = ("attack.eps", "attack.norm", "train.validation_n", "train.validation_steps")
_WITHOUT_MEANING = {
    "seed": "the best of several seeds is luck: train the best again with --seeds 0,1,2",
    "threads": "it changes the last bits of a number and no more",
}


@dataclass(frozen=True)
class Dimension:
    """A setting that varies: between the values of a list, or within a range.

    Attributes:
        name: the dotted name.
        choices: {text: value} of a list; empty for a range.
        low: the lower end of a range, which belongs to it.
        high: the upper end, which belongs to it as well.
        log: whether a range is drawn from evenly in the logarithm.
        whole: whether a range has whole numbers only.
    """

    name: str
    choices: Mapping[str, Any]
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values of a list, or both ends of a range."""
        return tuple(self.choices.values()) if self.choices else (self.low, self.high)

    def describe(self) -> str:
        """The values in words: "1, 3, 6", or "0.01 to 0.3 (log)"."""
        if self.choices:
            return ", ".join(self.choices)
        return f"{readable(self.low)} to {readable(self.high)}{' (log)' if self.log else ''}"

    def suggest(self, trial: "Trial") -> Any:
        """The value of a trial: as the study has it, else as its sampler draws it."""
        if self.choices:
            return self.choices[trial.suggest_categorical(self.name, tuple(self.choices))]
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Space:
    """The settings that vary in a sweep.

    Attributes:
        name: what the space is called: its file without the ending.
        dimensions: the settings, in the order of the file.
    """

    name: str
    dimensions: tuple[Dimension, ...]

    @property
    def points(self) -> list[dict[str, str]] | None:
        """Every combination as {name: text of the value}, where all settings are lists; else None."""
        if not all(dimension.choices for dimension in self.dimensions):
            return None
        names = [dimension.name for dimension in self.dimensions]
        texts = product(*(dimension.choices for dimension in self.dimensions))
        return [dict(zip(names, point, strict=True)) for point in texts]

    def describe(self) -> dict[str, str]:
        """The space as {name: its values in words}."""
        return {dimension.name: dimension.describe() for dimension in self.dimensions}


def names() -> list[str]:
    """The names of the spaces that come with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def name_of(space: str | Path | Mapping[str, Any]) -> str:
    """The name of a space, before it is read: that of its file without the ending."""
    return "sweep" if isinstance(space, Mapping) else Path(space).stem


def read_space(space: str | Path | Mapping[str, Any], config: Config) -> Space:
    """A space whose values the schema takes.

    Args:
        space: a name of ``names()``, a YAML file, or what such a file holds: {"train.beta": [1, 6],
            "optimizer.lr": {"low": 0.01, "high": 0.3, "log": True}}.
        config: the configuration whose settings vary.

    Raises:
        UserError: there is no such space; a setting is unknown, may not vary, or takes none of its values; or
            values do not go together.
    """
    source, content = _open(space)
    if not content:
        raise UserError(f"{source} is empty: write settings that vary, such as 'train.beta: [1, 3, 6]'.")
    for name in content:
        _refuse_unknown(source, name)
        _refuse_what_may_not_vary(source, name)
    firsts = {name: _first(source, name, values) for name, values in content.items()}
    dimensions = tuple(
        _read_dimension(source, name, values, config, firsts) for name, values in content.items()
    )
    _check_combinations(source, dimensions, config)
    return Space(name_of(space), dimensions)


def apply(config: Config, values: Mapping[str, Any], source: str) -> Config:
    """A configuration in which some settings, by their dotted names, have other values.

    Raises:
        UserError: a value is out of its range, or does not go with the others.
    """
    return resolve(plain(config), nest(values), source=source)


def value_of(config: Config, name: str) -> Any:
    """The value of a setting as YAML can hold it."""
    value: Any = plain(config)
    for part in name.split("."):
        value = value[part]
    return value


def text_of(value: Any) -> str:
    """A value as people write it: 8/255, true, null, or a list with commas."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return readable(value)
    return ",".join(map(text_of, value)) if isinstance(value, list) else str(value)


def _open(space: str | Path | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """What messages call a space, and what it holds."""
    if isinstance(space, Mapping):
        return "the space", space
    path = Path(space).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return str(space), read_yaml(path)
    if str(space) not in names():
        raise UserError(
            f"no space is called {str(space)!r}. {nearest(str(space), names())} Or name a .yaml file."
        )
    return str(space), read_yaml(_FOLDER / f"{space}.yaml")


def _refuse_unknown(source: str, name: object) -> None:
    known = [key for key, _ in settings()]
    if name in known:
        return
    inside = [key for key in known if key.startswith(f"{name}.")]
    hint = f"Write dotted names, such as {inside[0]!r}." if inside else nearest_key(str(name))
    raise UserError(f"{source}: unknown setting {str(name)!r}. {hint}")


def _refuse_what_may_not_vary(source: str, name: str) -> None:
    section, _, leaf = name.partition(".")
    reason = None
    if name in NOT_IDENTITY or section in NOT_IDENTITY:
        reason = "it has no effect on what is learned"
    elif name in _WITHOUT_MEANING:
        reason = _WITHOUT_MEANING[name]
    elif name in _OF_VALIDATION or (section == "data" and leaf not in _OF_TRAINING_IMAGES):
        reason = "validation measures by it, so trials would not be comparable. Give it to the command, for all trials"
    if reason is not None:
        raise UserError(f"{source}: {name} may not vary: {reason}.")


def _first(source: str, name: str, values: Any) -> Any:
    """The first value of a list, or the lower end of a range."""
    if isinstance(values, list | tuple) and values:
        return values[0]
    if isinstance(values, Mapping) and {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        return values["low"]
    raise UserError(
        f"{source}: {name} needs a list such as [1, 3, 6], or a range such as {{low: 0.01, high: 0.3, log: true}}; "
        f"got {values!r:.100}."
    )


def _read_dimension(
    source: str, name: str, values: Any, config: Config, firsts: Mapping[str, Any]
) -> Dimension:
    def read(value: Any) -> Any:
        return value_of(apply(config, {**firsts, name: value}, source), name)

    if not isinstance(values, Mapping):
        read_values = [read(value) for value in values]
        choices = {text_of(value): value for value in read_values}
        if len(choices) < len(read_values):
            raise UserError(f"{source}: {name} has a value twice: {', '.join(map(text_of, read_values))}.")
        return Dimension(name, choices)
    low, high, log = read(values["low"]), read(values["high"]), values.get("log", False)
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        raise UserError(f"{source}: {name} takes no range, since its values are no numbers: write a list.")
    if not isinstance(log, bool):
        raise UserError(f"{source}: log of {name} must be true or false, got {log!r:.100}.")
    if not low < high:
        raise UserError(f"{source}: {name} needs low below high, got {text_of(low)} and {text_of(high)}.")
    if log and low <= 0:
        raise UserError(f"{source}: {name} with log needs low above 0, got {text_of(low)}.")
    return Dimension(name, {}, low, high, log, whole=isinstance(low, int) and isinstance(high, int))


def _check_combinations(source: str, dimensions: Sequence[Dimension], config: Config) -> None:
    """Refuse values that do not go together, while nothing has been trained yet."""
    names_of = [dimension.name for dimension in dimensions]
    combinations = product(*(dimension.ends for dimension in dimensions))
    for combination in islice(combinations, MOST_CHECKED):
        apply(config, dict(zip(names_of, combination, strict=True)), source)


def refuse_given(space: Space, settings: Mapping[str, Any]) -> None:
    """Refuse a setting that varies and was given a value as well."""
    given_names = dict(settings_in(settings))
    for name in space.describe():
        if name in given_names:
            raise UserError(
                f"{name} varies in the space {space.name}: leave it out, or take it out of the space."
            )
