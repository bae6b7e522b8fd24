"""The settings of the attack in training, and of the budget."""

from typing import Literal

from pydantic import model_validator

from .values import Number, Section, setting


class AttackSettings(Section):
    """The attack inside adversarial training, and the budget of every evaluation."""

    norm: Literal["linf", "l2", "l1"] = setting(
        "The norm in which the attack's budget is measured. linf: the largest change of any pixel.",
        default="linf",
    )
    eps: Number = setting(
        "The radius of the budget: how far an attack may move an image. Pixels lie in [0, 1], so write 8/255 and not 8 "
        "for linf.",
        default=8 / 255,
        ge=0,
    )
    generation: Literal["pgd", "minimum-margin", "n-fgsm"] = setting(
        "How methods at and part make their adversarial examples. pgd: projected gradient descent, which raises the "
        "cross-entropy. minimum-margin: it is run towards each of several likely wrong classes, and the image that "
        "comes closest to its class counts (MM). n-fgsm: one step of the whole radius from an image with noise "
        "of twice the radius, which costs a fifth of ten PGD steps.",
        default="pgd",
    )
    targets: int = setting(
        "For attack.generation minimum-margin: the number of wrong classes to approach, the likeliest ones of the "
        "clean image.",
        default=3,
        ge=1,
    )
    noise: Number = setting(
        "For attack.generation n-fgsm: how far the noise of its start reaches, as a multiple of eps.",
        default=2.0,
        ge=0,
    )
    steps: int = setting("The number of PGD steps in training, towards each target.", default=10, ge=1)
    step_size: Number | None = setting(
        "The length of a PGD step. The default is 2.5 eps / steps, and eps with attack.generation n-fgsm.",
        default=None,
        gt=0,
    )
    eps_warmup: Number = setting(
        "The number of epochs, or a fraction of one, over which training's radius grows from 0 to eps, step by step in "
        "a straight line. It begins with the first attacked epoch. attack.step_size grows along. Validation always has "
        "the full eps.",
        default=0,
        ge=0,
    )

    @model_validator(mode="after")
    def _suits_its_generation(self) -> "AttackSettings":
        condition = f"with attack.generation {self.generation}"
        if self.generation != "minimum-margin":
            self.without_effect("targets", reason=f"{condition}: it is for minimum-margin")
        if self.generation != "n-fgsm":
            self.without_effect("noise", reason=f"{condition}: it is for n-fgsm")
            return self
        self.without_effect("steps", reason=f"{condition}, which takes one step")
        if self.norm != "linf":
            raise ValueError(f"attack.norm {self.norm}: attack.generation n-fgsm needs linf")
        return self

    @model_validator(mode="after")
    def _radius_in_range(self) -> "AttackSettings":
        for key, value in (("eps", self.eps), ("step_size", self.step_size or 0)):
            if self.norm == "linf" and value > 1:
                raise ValueError(
                    f"attack.{key} {value:g} exceeds the image range [0, 1]. Did you mean {value:g}/255?"
                )
        return self
