"""The typed schema of a run: what may be set, its range, its default, and what it means.

A run's configuration is a recipe (YAML), changed by dotted command-line arguments. Fractions such as ``8/255``
are read wherever a number is expected. Unknown keys and impossible values are refused with the nearest known
name or the allowed range. Imports neither torch nor anything else heavy, so that ``--help`` is instant.
"""

import re
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from .. import parsing
from ..catalogue import METHODS
from ..errors import UserError, nearest, unreadable
from ..numerals import readable as readable
from ..renamed_settings import current_name, in_first_words, old_words_in
from ..rundir import NOT_IDENTITY as NOT_IDENTITY
from .attack import AttackSettings
from .corruptions import CorruptionsSettings
from .data import DataSettings
from .evaluation import EvaluateSettings as EvaluateSettings
from .evaluation_attacks import EvaluationAttack as EvaluationAttack
from .mask import MaskSettings as MaskSettings
from .model import ModelSettings
from .protocols import departures
from .protocols import under_protocol as under_protocol
from .training import OptimizerSettings, TrainSettings
from .values import Duration, Location, Section, setting

LONGEST_NAME = 200  # bytes of a folder's name; file systems allow 255, and temporary names are longer
LONGEST_CLAUSE = 4000  # characters; one may list all settings, and repeat what a file holds
LONGEST_VALUE = 200  # characters of a value that a message repeats


class Config(Section):
    """A complete run."""

    name: str | None = setting(
        "The name of the run folder. The default is the name of the recipe, or of the model.", default=None
    )
    runs: Location = setting("The folder in which run folders are made.", default=Path("runs"))
    wait: Duration = setting(
        "How long to wait, such as 10m, while another process trains, evaluates or prepares the same. The default is "
        "not to wait. It is not stored with the run.",
        default=0.0,
        ge=0,
        exclude=True,
    )
    seed: int = setting("The seed of everything that is random.", default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = setting(
        "The device to compute on. auto: a CUDA device if there is one, else the CPU.", default="auto"
    )
    threads: int | None = setting(
        "The number of CPU threads of each process. Small networks are fastest with 1. The default is torch's choice.",
        default=None,
        ge=1,
    )
    data: DataSettings = Field(default_factory=DataSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    attack: AttackSettings = Field(default_factory=AttackSettings)
    mask: MaskSettings = Field(default_factory=MaskSettings)
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    corruptions: CorruptionsSettings = Field(default_factory=CorruptionsSettings)

    @field_validator("name")
    @classmethod
    def _stays_in_the_folder_of_runs(cls, name: str | None) -> str | None:
        parts = [] if name is None else re.split(r"[/\\]", name)
        if {".", ".."} & set(parts) or parts[:1] == [""] or (name is not None and Path(name).is_absolute()):
            raise ValueError(
                f"name {name} names no folder within the folder of runs: use --runs for another one"
            )
        if any(len(part.encode()) > LONGEST_NAME for part in parts):
            longest = max(len(part.encode()) for part in parts)
            raise ValueError(
                f"name takes {longest} bytes, one for each plain letter: use at most {LONGEST_NAME}"
            )
        if name is not None and not name.isprintable():
            raise ValueError(f"name {name!r} holds characters that cannot be seen")
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        for norm, radius in self.evaluate.budgets(self.attack.norm):
            if norm == "linf" and radius > 1:
                eps = readable(radius)
                raise ValueError(
                    f"evaluate.eps {eps} exceeds the image range [0, 1]. Did you mean {eps}/255?"
                )
        if self.model.normalisation is not None and "@" not in (self.name or "") and self.model.init is None:
            raise ValueError(
                "model.normalisation is for ARCHITECTURE@WEIGHTS; our own networks learn from [0, 1]"
            )
        facts = self.train.facts
        if self.attack.generation != "pgd" and self.attack.generation not in facts.generations:
            able = [
                key for key, entry in METHODS.items() if self.attack.generation in entry.facts.generations
            ]
            raise ValueError(
                f"attack.generation {self.attack.generation} is for methods {' and '.join(able)}: {self.train.method} "
                f"{'comes with an attack of its own' if facts.attacked else 'has no attack'}"
            )
        if self.attack.generation == "n-fgsm" and self.mask.projection == "multiply":
            raise ValueError(
                "mask.projection multiply has no effect with attack.generation n-fgsm: its one step is multiplied by "
                "the mask in any case"
            )
        if self.train.masked:
            if self.attack.norm != "linf":
                raise ValueError(
                    f"attack.norm {self.attack.norm}: method {self.train.method} needs linf, the norm with a radius "
                    "per pixel"
                )
            if self.mask.refresh_epochs is not None and self.mask.drawn_from == "clean":
                raise ValueError(
                    "mask.drawn_from clean has no effect with mask.refresh_epochs: stored maps are clean"
                )
            low = self.mask.eps_low
            if low != "auto" and low > self.attack.eps:
                hint = f". Did you mean {readable(low)}/255?" if low > 1 else ""
                raise ValueError(
                    f"mask.eps_low {readable(low)} exceeds attack.eps {readable(self.attack.eps)}: "
                    f"the pixels that matter less get the smaller radius{hint}"
                )
            _radii_in_range(self.mask, self.attack.eps)
        return self

    @model_validator(mode="after")
    def _keeps_to_its_protocol(self) -> "Config":
        name = self.evaluate.protocol
        if name is None:
            return self
        sections = {"data": self.data, "evaluate": self.evaluate, "corruptions": self.corruptions}
        if differing := departures(name, sections):
            raise ValueError(
                f"evaluate.protocol {name} fixes {', '.join(differing)}: leave them out, and give the protocol to the "
                "command that evaluates"
            )
        return self

    @model_validator(mode="after")
    def _radius_may_grow(self) -> "Config":
        warmup = self.attack.eps_warmup
        if not warmup:
            return self
        warmup_text = f"attack.eps_warmup {readable(warmup)}"
        if not self.train.facts.attacked:
            raise ValueError(
                f"{warmup_text} has no effect with train.method {self.train.method}: it has no attack"
            )
        if warmup > self.train.epochs:
            raise ValueError(
                f"{warmup_text} exceeds train.epochs {self.train.epochs}: the radius would never reach attack.eps"
            )
        if self.train.masked and self.mask.eps_low == "auto":
            raise ValueError(
                f"{warmup_text} goes with a number for mask.eps_low: the search of auto compares attacks of the full "
                "radius"
            )
        return self

    @property
    def c_seg(self) -> float:
        """The weight of the loss of parts: as given, else 0.5 for part models and 0 for others."""
        if self.train.c_seg is not None:
            return self.train.c_seg
        return 0.5 if self.model.segments else 0.0

    @model_validator(mode="after")
    def _parts_fit(self) -> "Config":
        name, train = self.model.name, self.train
        if not self.model.segments:
            if train.c_seg:
                raise ValueError(
                    f"train.c_seg {readable(train.c_seg)} needs a part model, and {name} is none"
                )
            masked = train.masked or self.evaluate.eps_low is not None
            if masked and self.mask.entry.facts.parts == "predicted":
                raise ValueError(f"mask.rule {self.mask.rule} needs a part model, and {name} is none")
        if self.data.crop_to_parts is not None and self.mask.files is not None:
            raise ValueError(
                "mask.files are masks of whole images: leave out data.crop_to_parts, or crop images and masks before"
            )
        if self.c_seg == 0 and train.part_loss != "segmentation":
            raise ValueError(f"train.part_loss {train.part_loss} has no effect without train.c_seg")
        if train.background_weight != 1 and (self.c_seg == 0 or train.part_loss != "segmentation"):
            weight = readable(train.background_weight)
            raise ValueError(
                f"train.background_weight {weight} has no effect "
                + ("without train.c_seg" if self.c_seg == 0 else f"with train.part_loss {train.part_loss}")
            )
        if self.data.labels == "centroids" and self.c_seg > 0 and train.part_loss == "segmentation":
            raise ValueError(
                "data.labels centroids leaves one pixel of each part, which is no mask: use train.part_loss centroids"
            )
        if self.c_seg > 0 and not train.facts.part_labels:
            raise ValueError(
                f"train.method {train.method} has no loss of parts: use at, trades, part or part-t, or train.c_seg 0"
            )
        return self

    @model_validator(mode="after")
    def _mask_aware_attack_fits(self) -> "Config":
        low = self.evaluate.eps_low
        if low is None:
            return self
        if len(self.evaluate.radii) > 1:
            raise ValueError(
                "evaluate.eps_low goes with a single evaluate.eps: its mask draws one radius for each pixel"
            )
        [eps] = self.evaluate.radii or (self.attack.eps,)
        if (self.evaluate.norm or self.attack.norm) != "linf":
            raise ValueError("evaluate.eps_low needs norm linf, the one with a radius per pixel")
        if low > eps:
            raise ValueError(
                f"evaluate.eps_low {readable(low)} exceeds evaluate.eps {readable(eps)}: the pixels that matter less "
                "get the smaller radius"
            )
        if self.evaluate.engine == "official":
            raise ValueError("evaluate.engine official knows one radius for all pixels: no evaluate.eps_low")
        return self


def _radii_in_range(mask: MaskSettings, eps: float) -> None:
    """Refuse radii outside [0, 1]: a mean-preserving mask goes above eps, and its inverse goes below eps_low."""
    if not mask.entry.facts.above_eps:
        return
    low = 0.0 if mask.eps_low == "auto" else mask.eps_low  # the search may go as low as 0
    gap = (eps - low) / mask.quantile
    peak = 2 * eps - low - gap if mask.control == "inverse" else low + gap
    if not 0 <= peak <= 1:
        raise ValueError(
            f"mask.rule {mask.rule} would give important pixels a radius of {peak:.3g}, outside [0, 1]: "
            "use a larger mask.quantile or a mask.eps_low nearer to attack.eps"
        )


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a resolved configuration that decide the result of a run, in the words that were stored first.

    A hash of these, or a comparison with what an old folder holds, means the same today as when the folder was made.
    """
    deciding = {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    for dotted in NOT_IDENTITY:
        head, _, tail = dotted.partition(".")
        if tail:
            deciding.get(head, {}).pop(tail, None)
        else:
            deciding.pop(head, None)
    return in_first_words(deciding)


def resolve(*layers: Mapping[str, Any], source: str = "the configuration") -> Config:
    """Merge nested mappings, of which later ones win, and check the result.

    Raises:
        UserError: a setting is unknown, out of range, or does not go with the others.
    """
    merged = merge(*layers)
    if renamed := old_words_in(merged):
        raise UserError(f"{source}: {'; '.join(renamed)}.")
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from None


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested mappings into one; where two give a value, the later one wins.

    One that chooses ``attack.generation n-fgsm`` drops the steps of PGD that earlier ones, such as a recipe, ask for.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        if (layer.get("attack") or {}).get("generation") == "n-fgsm":
            for name in ("steps", "step_size"):
                (merged.get("attack") or {}).pop(name, None)
        _merge(merged, layer)
    return merged


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain values that YAML can hold."""
    dumped = config.model_dump(mode="json")
    assert isinstance(dumped, dict)
    return dumped


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file.

    Raises:
        UserError: the file cannot be read, is not valid YAML, or holds something else.
    """
    try:
        loaded = parsing.read_yaml(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must hold settings such as 'seed: 0', got {type(loaded).__name__}.")
    return loaded


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of every setting, in order."""
    for name, info in Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            for inner, inner_info in info.annotation.model_fields.items():
                yield f"{name}.{inner}", inner_info
        else:
            yield name, info


def explain(error: ValidationError) -> str:
    """One line with a clause for each problem: what came, what is allowed, and the nearest known name."""
    clauses = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            clauses.append(f"unknown setting {_shortened(where)!r}. {nearest_key(where)}")
        elif problem["type"] == "value_error":
            clauses.append(message)
        else:
            clauses.append(f"{where} = {_shortened(problem['input'])}: {message[0].lower()}{message[1:]}")
    clauses = [
        clause if len(clause) <= LONGEST_CLAUSE else f"{clause[:LONGEST_CLAUSE]}..." for clause in clauses
    ]
    text = "; ".join(clauses)
    return text if text.endswith(("?", ".")) else f"{text}."


def _shortened(value: object) -> str:
    """A value as it was written, or the beginning of it."""
    text = reprlib.repr(value) if isinstance(value, list | tuple | Mapping) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def nearest_key(dotted: str) -> str:
    """A hint for an unknown setting: its new name, its place in a file, or the nearest name."""
    *_, leaf = dotted.split(".")
    if (renamed := current_name(dotted)) is not None:
        return f"It is called {renamed!r} now."
    if dotted.startswith("evaluate.attacks."):
        return nearest(leaf, EvaluationAttack.model_fields)
    known = [key for key, _ in settings()]
    if dotted in known:  # in a file
        head, leaf = dotted.split(".")
        return f"Nest it: '{head}: {{{leaf}: ...}}'"
    same_leaf = [key for key in known if key.split(".")[-1] == leaf]
    return f"Did you mean {same_leaf[0]!r}?" if same_leaf else nearest(dotted, [*known, *Config.model_fields])


def _merge(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value
