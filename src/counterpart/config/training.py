"""The settings of the training loop and its optimiser."""

from typing import Literal

from pydantic import field_validator, model_validator

from ..catalogue import METHODS, sentences
from ..catalogue.methods import MethodFacts
from ..numerals import readable
from .values import Duration, Number, Section, named, setting


class Optimizer(Section):
    """SGD with momentum."""

    lr: Number = setting("peak learning rate", default=0.01, gt=0)
    momentum: Number = setting("momentum", default=0.9, ge=0, lt=1)
    nesterov: bool = setting("Nesterov momentum", default=False)
    weight_decay: Number = setting("weight decay of matrices and kernels", default=2e-4, ge=0)
    decay_norm: bool = setting(
        "decay biases and normalisation parameters as well, as the papers do", default=True
    )
    no_decay: tuple[str, ...] = setting(
        "no weight decay of parameters whose name contains one of these, such as bias,bn,ln", default=()
    )
    schedule: Literal["piecewise", "cosine", "constant"] = setting(
        "learning-rate schedule; train.clean_epochs have one of their own", default="piecewise"
    )
    milestones: tuple[Number, ...] = setting(
        "piecewise: shares of the epochs after which the rate is multiplied by gamma", default=(0.75,)
    )
    gamma: Number = setting("piecewise: factor at each milestone", default=0.1, gt=0, le=1)
    warmup_epochs: Number = setting("linear rise of the rate at the start", default=0, ge=0)
    clip_norm: Number | None = setting("clip the gradient's norm to this; default: off", default=None, gt=0)

    @model_validator(mode="after")
    def _milestones_rise(self) -> "Optimizer":
        if any(not 0 < m <= 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            shown = ", ".join(map(readable, self.milestones))
            raise ValueError(f"optimizer.milestones {shown} must rise within (0, 1]: shares of the epochs")
        if self.schedule != "piecewise":
            reason = f"with optimizer.schedule {self.schedule}: it is for piecewise"
            self.without_effect("milestones", "gamma", reason=reason)
        if self.nesterov and self.momentum == 0:
            raise ValueError("optimizer.nesterov needs optimizer.momentum > 0")
        return self

    @field_validator("milestones", "no_decay", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """From the command line: 0.5,0.75."""
        return value.split(",") if isinstance(value, str) else value

    @field_validator("no_decay")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("optimizer.no_decay has an empty part of a name, which every name contains")
        return value


class Train(Section):
    """How to train."""

    method: named("methods") = setting(  # type: ignore[valid-type]
        f"what is minimised. {sentences('methods')}", default="at"
    )
    beta: Number = setting("TRADES and MART: weight of the robust term", default=6, ge=0)
    bn_batches: Literal["separate", "joint"] = setting(
        "TRADES and MART: clean and attacked images pass batch norm each by themselves, or as one batch",
        default="separate",
    )
    c_seg: Number | None = setting(
        "part models: weight of the loss of parts, 1 - c_seg being that of the classes; default: 0.5",
        default=None,
        ge=0,
        le=1,
    )
    part_loss: Literal["segmentation", "centroids", "centroids-published"] = setting(
        "part models: cross-entropy of each pixel's part, or centres and masses of the parts alone; "
        "centroids-published: with the weights of the published code",
        default="segmentation",
    )
    label_smoothing: Number = setting(
        "share of each label that is spread evenly over all classes, in the cross-entropy of training (0.1 is common)",
        default=0,
        ge=0,
        lt=1,
    )
    epochs: int = setting("passes over the training images", default=80, ge=1)
    clean_epochs: int = setting(
        "passes without an attack before these, as a first phase of the run", default=0, ge=0
    )
    batch_size: int = setting("images per step, over all processes", default=128, ge=1)
    precision: Literal["auto", "float32", "bf16"] = setting(
        "arithmetic of training and of the attack inside it; float32 means that, not TF32; "
        "auto: bf16 where the hardware is built for it",
        default="auto",
    )
    compile: bool = setting("compile the inference view (worth it on CUDA)", default=False)
    ema: Number | None = setting(
        "decay of averaged weights, such as 0.995; default: off", default=None, gt=0, lt=1
    )
    awp: Number = setting(
        "adversarial weight perturbation: take each step's gradient where every kernel and matrix has moved by this "
        "share of its norm to raise the loss (5e-3 in the paper); costs one more pass; 0: off",
        default=0,
        ge=0,
        lt=1,
    )
    awp_warmup: int = setting("epochs without weight perturbation at the start", default=0, ge=0)
    validation_steps: int = setting("PGD steps of the validation after each epoch", default=10, ge=1)
    validation_n: int | None = setting("validate on this many images; default: all", default=None, ge=1)
    checkpoint_every: Duration = setting("seconds between checkpoints within an epoch", default=300, gt=0)
    stop_after: Duration | None = setting(
        "stop training cleanly at a checkpoint after this time (9m, 2h), all --seeds together; "
        "the same command continues",
        default=None,
        gt=0,
    )

    @property
    def facts(self) -> MethodFacts:
        """What the catalogue says of the method."""
        return METHODS[self.method].facts

    @property
    def masked(self) -> bool:
        """Whether budgets are pixel-reweighted."""
        return self.facts.masked

    @property
    def all_epochs(self) -> int:
        """Passes over the training images in all phases together."""
        return self.clean_epochs + self.epochs

    @model_validator(mode="after")
    def _has_these_terms(self) -> "Train":
        if not self.facts.robust_term:
            reason = f"with method {self.method}: it is for TRADES and MART"
            self.without_effect("beta", "bn_batches", reason=reason)
        return self

    @model_validator(mode="after")
    def _clean_comes_before_attacks(self) -> "Train":
        if self.clean_epochs and self.method == "clean":
            raise ValueError(
                f"train.clean_epochs {self.clean_epochs} has no effect with method clean: all epochs are"
            )
        return self

    @model_validator(mode="after")
    def _awp_begins(self) -> "Train":
        if not self.awp:
            self.without_effect("awp_warmup", reason="without train.awp, such as 5e-3")
        if self.awp and self.awp_warmup >= self.all_epochs:
            raise ValueError(
                f"train.awp_warmup {self.awp_warmup} leaves none of {self.all_epochs} epochs to train.awp"
            )
        return self
