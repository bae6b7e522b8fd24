"""The settings of the training loop and its optimiser."""

from typing import Literal

from pydantic import field_validator, model_validator

from ..catalogue import METHODS, sentences
from ..catalogue.methods import MethodFacts
from ..numerals import readable
from .values import Duration, Number, Section, named, setting


class OptimizerSettings(Section):
    """The optimiser and its learning rate."""

    name: Literal["sgd", "adamw"] = setting(
        "The optimiser. sgd: stochastic gradient descent with momentum. adamw: Adam with decoupled weight decay and "
        "betas 0.9 and 0.999, as transformers and pretrained encoders are mostly trained, at lr 1e-3 or less.",
        default="sgd",
    )
    lr: Number = setting("The largest learning rate of the schedule.", default=0.01, gt=0)
    momentum: Number = setting("For sgd: the momentum.", default=0.9, ge=0, lt=1)
    nesterov: bool = setting("For sgd: use Nesterov's form of momentum.", default=False)
    weight_decay: Number = setting(
        "The weight decay of matrices and kernels. sgd adds it, times the weight, to the gradient. adamw takes it, "
        "times weight and learning rate, from the weight itself, and is mostly given more, such as 0.01 or 0.05.",
        default=2e-4,
        ge=0,
    )
    decay_norm: bool = setting(
        "Apply weight decay to biases and the parameters of normalisation as well, as the papers do.",
        default=True,
    )
    no_decay: tuple[str, ...] = setting(
        "Apply no weight decay to parameters whose name contains one of these texts, such as bias,bn,ln. The default "
        "is no such text.",
        default=(),
    )
    schedule: Literal["piecewise", "cosine", "constant"] = setting(
        "How the learning rate falls. piecewise: at each milestone. cosine: evenly along a cosine, to zero. "
        "constant: never. Epochs of train.clean_epochs have such a schedule of their own.",
        default="piecewise",
    )
    milestones: tuple[Number, ...] = setting(
        "For schedule piecewise: the shares of the epochs after which the learning rate is multiplied by gamma.",
        default=(0.75,),
    )
    gamma: Number = setting("For schedule piecewise: the factor at each milestone.", default=0.1, gt=0, le=1)
    warmup_epochs: Number = setting(
        "The number of epochs at the start in which the learning rate rises evenly from zero.",
        default=0,
        ge=0,
    )
    warmup_steps: int = setting(
        "The number of steps at the start in which the learning rate rises evenly. Give this or warmup_epochs.",
        default=0,
        ge=0,
    )
    encoder_scale: Number = setting(
        "The encoder's learning rate, divided by that of the rest, such as 0.2. The rest is decoder and head of a part "
        "model, and the final layer of any other network.",
        default=1,
        gt=0,
    )
    clip_norm: Number | None = setting(
        "The largest norm of a gradient. Longer ones are shortened to it. The default is no limit.",
        default=None,
        gt=0,
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> "OptimizerSettings":
        if any(not 0 < m <= 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            milestones = ", ".join(map(readable, self.milestones))
            raise ValueError(
                f"optimizer.milestones {milestones} must rise within (0, 1]: shares of the epochs"
            )
        if self.schedule != "piecewise":
            reason = f"with optimizer.schedule {self.schedule}: it is for piecewise"
            self.without_effect("milestones", "gamma", reason=reason)
        if self.name == "adamw":
            self.without_effect("momentum", reason="with optimizer.name adamw: set it to 0.9, its default")
            self.without_effect("nesterov", reason="with optimizer.name adamw: set it to false")
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                f"optimizer.warmup_epochs {readable(self.warmup_epochs)} and optimizer.warmup_steps "
                f"{self.warmup_steps} say the same thing: give only one of them"
            )
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


class TrainSettings(Section):
    """How to train."""

    method: named("methods") = setting(  # type: ignore[valid-type]
        f"The training method. {sentences('methods')}.", default="at"
    )
    beta: Number = setting(
        "For TRADES and MART: the weight of the term that asks for robustness.", default=6, ge=0
    )
    bn_batches: Literal["separate", "joint"] = setting(
        "For TRADES and MART: whether clean and attacked images pass through batch norm separately, or joined into one "
        "batch.",
        default="separate",
    )
    c_seg: Number | None = setting(
        "For part models: the weight of the loss of parts. The loss of classes has weight 1 - c_seg. The default is "
        "0.5.",
        default=None,
        ge=0,
        le=1,
    )
    part_loss: Literal["segmentation", "centroids", "centroids-published"] = setting(
        "For part models: what the loss of parts compares. segmentation: the part of each pixel, by cross-entropy. "
        "centroids: only centre and mass of each part. centroids-published: the same, with the weights of the "
        "published code.",
        default="segmentation",
    )
    background_weight: Number = setting(
        "For train.part_loss segmentation: the weight of a pixel of the background in the loss of parts, beside 1 of "
        "any other. Less than 1, such as 0.2, helps where most of an image is background. The paper has 1.",
        default=1,
        gt=0,
    )
    label_smoothing: Number = setting(
        "The share of each label that the training loss spreads evenly over all classes. 0.1 is common.",
        default=0,
        ge=0,
        lt=1,
    )
    epochs: int = setting("The number of passes over the training images.", default=80, ge=1)
    clean_epochs: int = setting(
        "The number of passes without an attack that come before train.epochs, as a first phase of the run.",
        default=0,
        ge=0,
    )
    batch_size: int = setting("The number of images in a step, of all processes together.", default=128, ge=1)
    precision: Literal["auto", "float32", "bf16"] = setting(
        "The arithmetic of training and of the attack inside it. float32: full precision, without TF32. auto: bf16 "
        "where the hardware is built for it, else float32.",
        default="auto",
    )
    compile: bool = setting(
        "Compile each training step: attack, loss and gradients as one graph, beside a fused optimiser. This takes "
        "minutes at the first step and pays off on CUDA devices. What cannot be compiled so says why.",
        default=False,
    )
    ema: Number | None = setting(
        "The decay of an exponential average of the weights, such as 0.995. The averaged weights are the ones that are "
        "judged. By default nothing is averaged.",
        default=None,
        gt=0,
        lt=1,
    )
    awp: Number = setting(
        "Adversarial weight perturbation: before each step every kernel and matrix is moved by this share of its "
        "norm so that the loss rises, and the gradient is taken there (5e-3 in the paper). It costs one more pass. "
        "0: off.",
        default=0,
        ge=0,
        lt=1,
    )
    awp_warmup: int = setting(
        "The number of epochs at the start without weight perturbation.", default=0, ge=0
    )
    validation_steps: int = setting(
        "The number of PGD steps of the validation after each epoch.", default=10, ge=1
    )
    validation_n: int | None = setting(
        "The number of images to validate on. The default is all of them.", default=None, ge=1
    )
    checkpoint_every: Duration = setting(
        "The seconds between checkpoints within an epoch.", default=300, gt=0
    )
    stop_after: Duration | None = setting(
        "Stop training at a checkpoint after this time, such as 9m or 2h, for all --seeds together. The same command "
        "continues it.",
        default=None,
        gt=0,
    )

    @property
    def facts(self) -> MethodFacts:
        """What the catalogue says of the method."""
        return METHODS[self.method].facts

    @property
    def masked(self) -> bool:
        """Whether a mask gives each pixel a radius of its own."""
        return self.facts.masked

    @property
    def all_epochs(self) -> int:
        """Passes over the training images in all phases together."""
        return self.clean_epochs + self.epochs

    @model_validator(mode="after")
    def _has_these_terms(self) -> "TrainSettings":
        if not self.facts.robust_term:
            reason = f"with method {self.method}: it is for TRADES and MART"
            self.without_effect("beta", "bn_batches", reason=reason)
        return self

    @model_validator(mode="after")
    def _clean_comes_before_attacks(self) -> "TrainSettings":
        if self.clean_epochs and self.method == "clean":
            raise ValueError(
                f"train.clean_epochs {self.clean_epochs} has no effect with method clean: all epochs are"
            )
        return self

    @model_validator(mode="after")
    def _awp_begins(self) -> "TrainSettings":
        if not self.awp:
            self.without_effect("awp_warmup", reason="without train.awp, such as 5e-3")
        if self.awp and self.awp_warmup >= self.all_epochs:
            raise ValueError(
                f"train.awp_warmup {self.awp_warmup} leaves none of {self.all_epochs} epochs to train.awp"
            )
        return self
