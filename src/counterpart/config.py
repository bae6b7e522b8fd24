"""The typed schema of a run: what may be set, its range, its default, and what it means.

A run's configuration is a recipe (YAML), changed by dotted command-line arguments. Fractions such as ``8/255``
are read wherever a number is expected. Unknown keys and impossible values are refused with the nearest known
name or the allowed range. Imports neither torch nor anything else heavy, so that ``--help`` is instant.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from .errors import UserError, nearest
from .rundir import NOT_IDENTITY


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


Number = Annotated[float, BeforeValidator(_fraction)]
Duration = Annotated[float, BeforeValidator(_seconds)]
Location = Annotated[Path, AfterValidator(Path.expanduser)]


def readable(number: float) -> str:
    """A number as people write it: 8/255 rather than 0.03137254901960784, 300 rather than 300.0."""
    count, text = round(number * 255), f"{number:g}"
    return (
        f"{count}/255" if float(text) != number and count / 255 == number else repr(number).removesuffix(".0")
    )


def _set(description: str, **limits: Any) -> Any:
    return Field(description=description, **limits)


class Section(BaseModel):
    """A block of settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class Data(Section):
    """Which images."""

    name: Literal["digits", "cifar10", "folder"] = _set("data set", default="digits")
    root: Location | None = _set("folder that holds the data set; digits need none", default=None)
    download: bool = _set("fetch the data set into root if it is not there", default=False)
    validation: Number = _set(
        "share of the training images kept for validation, where the data set has no validation split of its own",
        default=0.1,
        gt=0,
        lt=1,
    )
    limit: int | None = _set(
        "use only this many training images, the same share of each class", default=None, ge=1
    )
    size: int | None = _set("side in pixels that images are resized and cropped to", default=None, ge=8)
    padding: int = _set("random crops after padding by this many pixels; 0: no crops", default=4, ge=0)
    flip: bool = _set("random horizontal flips", default=True)
    class_map: Location | None = _set(
        "JSON file {class folder: index of the model's output}, for a model that was trained on other classes",
        default=None,
    )


class Model(Section):
    """Which network."""

    name: str = _set("resnet18, preact-resnet18, wrn-D-K such as wrn-28-10, or timm/NAME", default="resnet18")
    width: int | None = _set(
        "channels of the first stage (64 in resnet18, 16 K in wrn-D-K)", default=None, ge=1
    )
    pretrained: bool = _set("start from timm's pretrained weights", default=False)
    init: str | None = _set(
        "start from these weights (a run folder, .safetensors, or a state dict .pt/.pth); "
        "a head of another size is replaced",
        default=None,
    )
    normalisation: Literal["none", "half", "cifar10", "cifar100", "imagenet"] | None = _set(
        "for ARCHITECTURE@WEIGHTS: what the network was trained to see, where its file does not say",
        default=None,
    )


class Attack(Section):
    """The attack inside adversarial training, and the budget of every evaluation."""

    norm: Literal["linf", "l2", "l1"] = _set("norm of the budget", default="linf")
    eps: Number = _set("radius; images lie in [0, 1], so 8/255 and not 8 for linf", default=8 / 255, ge=0)
    steps: int = _set("PGD steps in training", default=10, ge=1)
    step_size: Number | None = _set("PGD step; default 2.5 eps / steps", default=None, gt=0)

    @model_validator(mode="after")
    def _radius_in_range(self) -> "Attack":
        for key, value in (("eps", self.eps), ("step_size", self.step_size or 0)):
            if self.norm == "linf" and value > 1:
                raise ValueError(
                    f"attack.{key} {value:g} exceeds the image range [0, 1]. Did you mean {value:g}/255?"
                )
        return self


class Part(Section):
    """Pixel-reweighted budgets (method part)."""

    eps_low: Number = _set("radius of the pixels that matter less; at most eps", default=7 / 255, ge=0)
    mask: Literal["paper", "uniform"] = _set(
        "paper: eps where the standardised map exceeds 1, eps_low elsewhere; "
        "uniform: the control, each image's radius is the mean of its paper mask",
        default="paper",
    )
    mask_from: Literal["start", "clean"] = _set(
        "take the map from the attack's own first pass (free), or from a pass on the clean image",
        default="start",
    )
    map_class: Literal["true", "predicted"] = _set("class that the map explains", default="true")
    refresh_epochs: int | None = _set(
        "recompute maps every so many epochs and store them by sample; default: every step",
        default=None,
        ge=1,
    )
    burn_in: Number = _set(
        "share of the epochs with the full budget before masks begin", default=0.25, ge=0, le=1
    )


class Optimizer(Section):
    """SGD with momentum."""

    lr: Number = _set("peak learning rate", default=0.01, gt=0)
    momentum: Number = _set("momentum", default=0.9, ge=0, lt=1)
    nesterov: bool = _set("Nesterov momentum", default=False)
    weight_decay: Number = _set("weight decay of matrices and kernels", default=2e-4, ge=0)
    decay_norm: bool = _set(
        "decay biases and normalisation parameters as well, as the papers do", default=True
    )
    schedule: Literal["piecewise", "cosine", "constant"] = _set("learning-rate schedule", default="piecewise")
    milestones: tuple[Number, ...] = _set(
        "piecewise: shares of the epochs after which the rate is multiplied by gamma", default=(0.75,)
    )
    gamma: Number = _set("piecewise: factor at each milestone", default=0.1, gt=0, le=1)
    warmup_epochs: Number = _set("linear rise of the rate at the start", default=0, ge=0)
    clip_norm: Number | None = _set("clip the gradient's norm to this; default: off", default=None, gt=0)

    @model_validator(mode="after")
    def _milestones_rise(self) -> "Optimizer":
        if any(not 0 < m <= 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            shown = ", ".join(map(readable, self.milestones))
            raise ValueError(f"optimizer.milestones {shown} must rise within (0, 1]: shares of the epochs")
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum > 0")
        return self

    @field_validator("milestones", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """From the command line: 0.5,0.75."""
        return value.split(",") if isinstance(value, str) else value


class Train(Section):
    """How to train."""

    method: Literal["clean", "at", "part"] = _set("clean, adversarial, or pixel-reweighted", default="at")
    epochs: int = _set("passes over the training images", default=80, ge=1)
    batch_size: int = _set("images per step, over all processes", default=128, ge=1)
    precision: Literal["auto", "float32", "bf16"] = _set(
        "arithmetic of training and of the attack inside it; float32 means that, not TF32; "
        "auto: bf16 where the hardware is built for it",
        default="auto",
    )
    compile: bool = _set("compile the inference view (worth it on CUDA)", default=False)
    ema: Number | None = _set(
        "decay of averaged weights, such as 0.995; default: off", default=None, gt=0, lt=1
    )
    validation_steps: int = _set("PGD steps of the validation after each epoch", default=10, ge=1)
    validation_n: int | None = _set("validate on this many images; default: all", default=None, ge=1)
    checkpoint_every: Duration = _set("seconds between checkpoints within an epoch", default=300, gt=0)
    stop_after: Duration | None = _set(
        "stop training cleanly at a checkpoint after this time (9m, 2h), all --seeds together; "
        "the same command continues",
        default=None,
        gt=0,
    )


# The attacks of an evaluation, and the options of each with their defaults.
ATTACK_OPTIONS: dict[str, dict[str, object]] = {
    "pgd": {"loss": "cross_entropy", "target": None, "steps": 20, "restarts": 1, "step_size": None},
    "fgsm": {"loss": "cross_entropy", "target": None},
    "apgd": {"loss": "cross_entropy", "target": None, "steps": 100, "restarts": 1, "eot": 1},
    "fab": {"target": None, "steps": 100, "restarts": 1},
    "square": {"queries": 5000},
    "minimum-margin": {"targets": 3, "steps": 20},
    "rays": {"queries": 10000},
    "random-search": {"draws": 100},
    "autoattack": {"version": "standard"},
}
TRANSFERABLE = ("pgd", "fgsm", "apgd", "fab")


class EvaluationAttack(Section):
    """One attack of an evaluation; options that it does not have are refused."""

    attack: Literal[
        "pgd", "fgsm", "apgd", "fab", "square", "minimum-margin", "rays", "random-search", "autoattack"
    ] = _set("which attack", default="pgd")
    loss: Literal["cross_entropy", "margin", "dlr", "kl_divergence"] | None = _set(
        "what it increases", default=None
    )
    target: int | None = _set(
        "aim at the wrong class of this rank, 1 being the most likely; default: untargeted",
        default=None,
        ge=1,
    )
    targets: int | None = _set("how many wrong classes, likeliest first", default=None, ge=1)
    steps: int | None = _set("gradient steps", default=None, ge=1)
    restarts: int | None = _set("independent starts", default=None, ge=1)
    step_size: Number | None = _set("step; default 2.5 eps / steps", default=None, gt=0)
    eot: int | None = _set("passes that a gradient is averaged over", default=None, ge=1)
    queries: int | None = _set("questions to the model", default=None, ge=1)
    draws: int | None = _set("random points", default=None, ge=1)
    version: Literal["standard", "plus", "rand", "few-classes"] | None = _set("of AutoAttack", default=None)
    surrogate: str | None = _set(
        "search on this model instead (a transfer attack): any TARGET of counterpart evaluate", default=None
    )

    @model_validator(mode="after")
    def _has_these_options(self) -> "EvaluationAttack":
        known = ATTACK_OPTIONS[self.attack]
        given = {name for name, value in self if value is not None} - {"attack"}
        known_here = {*known, "surrogate"} if self.attack in TRANSFERABLE else set(known)
        for name in sorted(given - known_here):
            raise ValueError(f"attack {self.attack} has no {name}. It has: {', '.join(sorted(known_here))}")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Its options, as given or by default."""
        return {
            name: default if getattr(self, name) is None else getattr(self, name)
            for name, default in ATTACK_OPTIONS[self.attack].items()
        }


# Suites that ``evaluate.attacks`` knows by name, beside the names of single attacks.
SUITES: dict[str, list[dict[str, object]]] = {
    "quick": [{"steps": 20}, {"loss": "margin", "steps": 50, "restarts": 5}],
    "mm3": [{"attack": "minimum-margin"}],
    "mm9": [{"attack": "minimum-margin", "targets": 9}],
    "mm+": [{"attack": "minimum-margin", "targets": 9, "steps": 100}],
    "autoattack-plus": [{"attack": "autoattack", "version": "plus"}],
    "autoattack-rand": [{"attack": "autoattack", "version": "rand"}],
    "autoattack-few-classes": [{"attack": "autoattack", "version": "few-classes"}],
    **{name: [{"attack": name}] for name in ATTACK_OPTIONS},
}


class Evaluate(Section):
    """How to evaluate."""

    attacks: tuple[EvaluationAttack, ...] = _set(
        "attacks, cheapest first: names with commas between them, such as pgd,autoattack (also apgd, fab, square, "
        "mm3, mm9, mm+, rays, random-search, fgsm, autoattack-plus, autoattack-rand, autoattack-few-classes, quick), "
        "or a list with options such as '[{attack: pgd, loss: margin, steps: 50, restarts: 5}]'",
        default_factory=lambda: (EvaluationAttack(),),
    )
    norm: Literal["linf", "l2", "l1"] | None = _set("norm of the budget; default: attack.norm", default=None)
    eps: Number | None = _set("radius of the budget; default: attack.eps", default=None, ge=0)
    split: Literal["test", "validation"] = _set("which images", default="test")
    weights: Literal["best", "last"] = _set(
        "best: by robust validation accuracy in the last phase; last: of the last epoch", default="best"
    )
    n: int | None = _set("evaluate this many images, seeded and balanced; default: all", default=None, ge=1)
    individual: bool = _set(
        "let each attack meet all images that the model gets right, not only those that earlier attacks left",
        default=False,
    )
    precision: Literal["float32", "bf16"] = _set(
        "of the search; bf16 ends with float32 attacks on what is left. Judged in float32 always",
        default="float32",
    )
    engine: Literal["counterpart", "official"] = _set(
        "who runs AutoAttack: ours, or the published package (extra bench)", default="counterpart"
    )
    batch_size: int = _set("images that an attack meets at once", default=256, ge=1)
    chunk_size: int = _set(
        "images per chunk: with one attack (or target), the unit that is committed and given to a process",
        default=500,
        ge=1,
    )
    save_images: bool = _set("keep the images that fool the model, for counterpart verify", default=True)

    @field_validator("attacks", mode="before")
    @classmethod
    def _suite(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found: list[dict[str, object]] = []
        for name in value.split(","):
            if name.strip() not in SUITES:
                raise ValueError(
                    f"evaluate.attacks {name.strip()!r} is unknown. {nearest(name.strip(), SUITES)}"
                )
            found += SUITES[name.strip()]
        return found

    @model_validator(mode="after")
    def _official_runs_autoattack(self) -> "Evaluate":
        if self.engine == "official":
            others = [one.attack for one in self.attacks if one.attack != "autoattack"]
            if others:
                raise ValueError(f"evaluate.engine official runs autoattack only, not {', '.join(others)}")
            if self.precision != "float32":
                raise ValueError("evaluate.engine official searches in float32 only")
        return self


class Config(Section):
    """A complete run."""

    name: str | None = _set("name of the run folder; default: the recipe's", default=None)
    runs: Location = _set("folder that run folders go into", default=Path("runs"))
    seed: int = _set("seed of everything random", default=0, ge=0)
    device: Literal["auto", "cpu", "cuda", "mps"] = _set("auto: cuda if there is one", default="auto")
    threads: int | None = _set(
        "CPU threads of each process; small networks want 1; default: torch's choice", default=None, ge=1
    )
    data: Data = Field(default_factory=Data)
    model: Model = Field(default_factory=Model)
    attack: Attack = Field(default_factory=Attack)
    part: Part = Field(default_factory=Part)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    train: Train = Field(default_factory=Train)
    evaluate: Evaluate = Field(default_factory=Evaluate)

    @model_validator(mode="after")
    def _fits_together(self) -> "Config":
        if (self.evaluate.norm or self.attack.norm) == "linf" and (self.evaluate.eps or 0) > 1:
            eps = readable(self.evaluate.eps or 0)
            raise ValueError(f"evaluate.eps {eps} exceeds the image range [0, 1]. Did you mean {eps}/255?")
        if self.model.normalisation is not None and "@" not in (self.name or "") and self.model.init is None:
            raise ValueError(
                "model.normalisation is for ARCHITECTURE@WEIGHTS; our own networks learn from [0, 1]"
            )
        if self.train.method == "part":
            if self.attack.norm != "linf":
                raise ValueError(
                    f"attack.norm {self.attack.norm}: method part needs linf, the norm with a radius per pixel"
                )
            low, eps = readable(self.part.eps_low), readable(self.attack.eps)
            if self.part.refresh_epochs is not None and self.part.mask_from == "clean":
                raise ValueError(
                    "part.mask_from clean has no effect with part.refresh_epochs: stored maps are clean"
                )
            if self.part.eps_low > self.attack.eps:
                hint = f". Did you mean {low}/255?" if self.part.eps_low > 1 else ""
                raise ValueError(
                    f"part.eps_low {low} exceeds attack.eps {eps}: "
                    f"the pixels that matter less get the smaller radius{hint}"
                )
        return self


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved configuration that makes the run what it is."""
    kept = {k: dict(v) if isinstance(v, Mapping) else v for k, v in config.items()}
    for dotted in NOT_IDENTITY:
        head, _, tail = dotted.partition(".")
        if tail:
            kept.get(head, {}).pop(tail, None)
        else:
            kept.pop(head, None)
    return kept


def resolve(*layers: Mapping[str, Any], source: str = "the configuration") -> Config:
    """Merge nested mappings, later ones winning, and check the result."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge(merged, layer)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error)}") from None


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain YAML-able values."""
    dumped = config.model_dump(mode="json")
    assert isinstance(dumped, dict)
    return dumped


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path} must hold settings such as 'seed: 0', got {type(loaded).__name__}.")
    return loaded


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key and its field, in order."""
    for name, info in Config.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            for inner, inner_info in info.annotation.model_fields.items():
                yield f"{name}.{inner}", inner_info
        else:
            yield name, info


def explain(error: ValidationError) -> str:
    """One line, a clause per problem: what came, what is allowed, the nearest known name."""
    clauses = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            clauses.append(f"unknown setting {where!r}. {nearest_key(where)}")
        elif problem["type"] == "value_error":
            clauses.append(message)
        else:
            clauses.append(f"{where} = {problem['input']}: {message[0].lower()}{message[1:]}")
    text = "; ".join(clauses)
    return text if text.endswith(("?", ".")) else f"{text}."


def nearest_key(dotted: str) -> str:
    """A hint for an unknown setting."""
    *_, leaf = dotted.split(".")
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
