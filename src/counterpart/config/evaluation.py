"""The settings of an evaluation."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, field_validator, model_validator

from ..catalogue.attacks import FREE_PIXELS
from ..claims import read_claim
from ..errors import nearest
from ..numerals import readable
from .corruptions import SETS
from .evaluation_attacks import (
    EvaluationAttack,
    attacks_named,
    refuse_attacks_without_averages,
    single_attacks,
)
from .values import (
    CountOrAuto,
    Norms,
    Number,
    OfKind,
    Radii,
    Section,
    entry_of,
    setting,
)


def _known_protocol(name: str | None) -> str | None:
    if name is not None:
        entry_of("protocols", name)
    return name


def _known_claim(text: str | None) -> str | None:
    return None if text is None else str(read_claim(text))


class EvaluateSettings(Section):
    """How to evaluate."""

    protocol: Annotated[str | None, AfterValidator(_known_protocol), OfKind("protocols")] = setting(
        "The protocol of a published benchmark, such as robustbench-cifar10-linf. It fixes the images and their "
        "number, the budget, the attacks and the precision, and none of these may be given beside it. The command "
        "counterpart list protocols says what each fixes.",
        default=None,
    )
    attacks: tuple[EvaluationAttack, ...] = setting(
        "The attacks, cheapest first: names with commas between them, such as pgd,autoattack; or a list with "
        "options, such as '[{attack: pgd, loss: margin, steps: 50, restarts: 5}]'; or your own code as "
        "module:function. The command counterpart list attacks shows all names and options.",
        default_factory=lambda: (EvaluationAttack(),),
    )
    norm: Norms | None = setting(
        "The norm in which the attack's budget is measured: linf, l2 or l1; l0, where eps is how many pixels may take "
        "any value; or patch, where it is the side of a window of such pixels. Or several, for the union of their "
        "budgets: linf,l2,l1 with a radius for each, such as eps 8/255,0.5,12. The default is attack.norm.",
        default=None,
    )
    eps: Radii | None = setting(
        "The radius of the budget; or several, rising, for a curve of accuracy against radius: 2/255,4/255,8/255. With "
        "several norms, the radius of each, in their order. The default is attack.eps.",
        default=None,
    )
    eps_low: Number | None = setting(
        "Attack under a mask, as mask.* draw it on the attacked model: the pixels that it calls less important get "
        "this radius, and the others get eps. By default all pixels get eps.",
        default=None,
        ge=0,
    )
    on: str | None = setting(
        "Corrupt the images before they are attacked, as NAME:SEVERITY, such as fog:3: one of the common corruptions "
        "(--corruptions.names) at a severity from 1 to 5. The budget is as always.",
        default=None,
    )
    draws: int = setting(
        "For models whose answers are random: how often each image is judged, anew each time. An accuracy is then the "
        "mean over the images of the share of these draws that are right. 1 judges each image once.",
        default=1,
        ge=1,
    )
    votes: int = setting(
        "For models whose answers are random: how many passes vote on each answer. The class with the most votes is "
        "the answer, and of several such classes the first.",
        default=1,
        ge=1,
    )
    eot: int = setting(
        "For models whose answers are random: how many passes each gradient of an attack is averaged over "
        "(expectation over transformation), unless the attack has its own option eot.",
        default=1,
        ge=1,
    )
    fixed_noise: bool = setting(
        "For models whose answers are random: let every pass and every image meet the same noise, drawn from the seed, "
        "which makes the model deterministic. Attacks then know the noise.",
        default=False,
    )
    sampled: CountOrAuto | None = setting(
        "Try the dear attacks on so many images only, drawn at random from those that all other attacks left standing. "
        "What they find there gives an estimate for all images, with intervals. auto draws in rounds until the "
        "interval is as narrow as evaluate.sampled_width. By default every attack meets all that still stand.",
        default=None,
    )
    dear_attacks: Annotated[tuple[str, ...], BeforeValidator(single_attacks)] | None = setting(
        "The attacks that evaluate.sampled tries on a sample, by their names in counterpart list attacks, with commas "
        "between them. They run last. The default is fab,square, which stand for all their targets.",
        default=None,
    )
    sampled_width: Number = setting(
        "For evaluate.sampled auto: the width at which the interval of the judged images is narrow enough, as a share "
        "of the images.",
        default=0.01,
        gt=0,
        lt=1,
    )
    sampled_looks: int = setting(
        "For evaluate.sampled auto: how often at most it is asked whether a sample suffices. Each sample is twice as "
        "large as the one before it, and behind the last all images are tried. The error of the interval is split "
        "over the looks.",
        default=4,
        ge=1,
        le=20,
    )
    split: Literal["test", "validation"] = setting("The split that is judged.", default="test")
    weights: Literal["best", "last", "unaveraged"] = setting(
        "Which weights of the run are judged. best: those of the best robust validation accuracy in the last phase, "
        "and of a segmenter alone (train.c_seg 1) those of the best mIoU. last: those of the last epoch. With "
        "train.ema both are averaged; unaveraged: those of the last epoch as the optimiser left them.",
        default="best",
    )
    n: int | None = setting(
        "The number of images to judge, drawn by a fixed seed with the same share of each class. The default is all.",
        default=None,
        ge=1,
    )
    individual: bool = setting(
        "Let each attack meet all images that the model gets right, and not only those that no earlier attack fooled.",
        default=False,
    )
    parts: bool = setting(
        "For part models: also measure how well parts are found, by pixel accuracy, mIoU (the mean overlap of "
        "predicted and true parts) and the overlap of each part. It is measured on clean images, and on images under "
        "PGD-20 on the class and under PGD-20 on the parts.",
        default=False,
    )
    precision: Literal["float32", "bf16", "tf32"] = setting(
        "The arithmetic in which attacks search. bf16 is faster, and so is tf32 on GPUs that have it; both end with "
        "float32 attacks on the images that still stand. Images are always judged in float32.",
        default="float32",
    )
    engine: Literal["counterpart", "official"] = setting(
        "The code that runs AutoAttack. counterpart: this program's own. official: the published package, which the "
        "extra bench installs.",
        default="counterpart",
    )
    batch_size: int | None = setting(
        "The number of images that an attack meets at once. Left out: 256 on a CPU, and on a GPU as many as its memory "
        "holds, up to 2,048.",
        default=None,
        ge=1,
    )
    chunk_size: int | None = setting(
        "The number of images in a chunk. A chunk under an attack (or a target of it) is what is saved at once, and "
        "what is given to a process. Left out: 500 on a CPU, 10,000 on a GPU.",
        default=None,
        ge=1,
    )
    claim: Annotated[str | None, AfterValidator(_known_claim)] = setting(
        "A claim to judge, such as '60 % at 8/255': that so many images survive every attack within that radius. It is "
        "refuted where the interval's upper end lies below it, consistent where the lower end reaches it, and else "
        "undecided. It changes nothing that is evaluated.",
        default=None,
    )
    save_images: bool = setting(
        "Save the images that fool the model, so that counterpart verify can check them.", default=True
    )

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that are asked for; empty where training's counts."""
        if self.norm is None:
            return ()
        return self.norm if isinstance(self.norm, tuple) else (self.norm,)

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii that are asked for; empty where training's counts.

        They rise, or are those of ``norms`` where there are several.
        """
        if self.eps is None:
            return ()
        return self.eps if isinstance(self.eps, tuple) else (self.eps,)

    def budgets(self, norm: str) -> list[tuple[str, float]]:
        """The norm and the radius of each budget that is asked for; ``norm`` is that of training."""
        if len(self.norms) > 1:
            return list(zip(self.norms, self.radii, strict=True))
        return [((self.norms or (norm,))[0], radius) for radius in self.radii]

    @property
    def by_draws(self) -> bool:
        """Whether images are judged by shares of several draws, or by votes."""
        return self.draws > 1 or self.votes > 1

    @property
    def averages(self) -> bool:
        """Whether some attack averages gradients over several passes, or none follows gradients."""
        followers = [asked for asked in self.attacks if asked.entry.facts.by_gradient]
        return not followers or self.eot > 1 or any(asked.passes > 1 for asked in followers)

    @field_validator("on")
    @classmethod
    def _names_a_corruption(cls, value: str | None) -> str | None:
        name, _, severity = (value or "").partition(":")
        if value is not None and (name not in SETS["all"] or severity not in ("1", "2", "3", "4", "5")):
            close = "" if name in SETS["all"] else f" {nearest(name, SETS['all'])}"
            raise ValueError(
                f"evaluate.on {value} should be a corruption and its severity, such as fog:3.{close}"
            )
        return value

    @model_validator(mode="after")
    def _radii_fit_the_norms(self) -> "EvaluateSettings":
        if len(self.norms) > 1 and len(self.radii) != len(self.norms):
            raise ValueError(
                f"evaluate.norm {','.join(self.norms)} is a union of {len(self.norms)} budgets, and evaluate.eps has "
                f"{len(self.radii)} radii: give one for each norm, such as --norm linf,l2 --eps 8/255,0.5"
            )
        free = [norm for norm in self.norms if norm in FREE_PIXELS]
        if free and (self.precision != "float32" or self.parts):
            without = (
                "evaluate.parts: PGD on parts"
                if self.parts
                else f"evaluate.precision {self.precision}: its last search, APGD,"
            )
            raise ValueError(f"evaluate.norm {free[0]} does not go with {without} needs linf, l2 or l1")
        one_norm = len(self.norms) < 2 and isinstance(self.eps, tuple)
        if one_norm and (not self.radii or any(low >= high for low, high in pairwise((0.0, *self.radii)))):
            raise ValueError(
                f"evaluate.eps = {','.join(map(readable, self.radii))}: several radii should rise from the smallest, "
                "which is above 0, as in 2/255,4/255,8/255"
            )
        return self

    @model_validator(mode="after")
    def _random_answers(self) -> "EvaluateSettings":
        counts = {"draws": self.draws, "votes": self.votes, "eot": self.eot}
        asked = [f"evaluate.{name} {count}" for name, count in counts.items() if count > 1]
        if self.fixed_noise:
            needs = [name for name in ("parts", "eps_low") if getattr(self, name)]
            needs += [f"attack {named.attack}" for named in self.attacks if named.entry.facts.of_parts]
            if asked:
                raise ValueError(f"{asked[0]} has no effect with evaluate.fixed_noise: leave out one of them")
            if needs:
                raise ValueError(f"evaluate.fixed_noise knows logits alone: {needs[0]} does not go with it")
        if asked and self.precision != "float32":
            raise ValueError(f"{asked[0]} does not go with evaluate.precision {self.precision}: take float32")
        if self.eot > 1 and self.engine == "official":
            raise ValueError(
                "evaluate.eot is not for evaluate.engine official, whose autoattack-rand averages 20 passes"
            )
        if asked:
            refuse_attacks_without_averages(asked[0], self.attacks)
        return self

    @model_validator(mode="after")
    def _sample_fits(self) -> "EvaluateSettings":
        if self.sampled is None:
            self.without_effect("dear_attacks", reason="without evaluate.sampled")
        if self.sampled != "auto":
            self.without_effect("sampled_width", "sampled_looks", reason="without evaluate.sampled auto")
        if self.sampled is None:
            return self
        clashes = {
            "evaluate.individual": self.individual,
            "several radii in evaluate.eps": len(self.norms) < 2 and len(self.radii) > 1,
            "several norms in evaluate.norm": len(self.norms) > 1,
            "evaluate.draws": self.draws > 1,
            "evaluate.votes": self.votes > 1,
        }
        for name, asked in clashes.items():
            if asked:
                raise ValueError(
                    f"evaluate.sampled {self.sampled} draws from what one list of attacks leaves at one radius, and "
                    f"does not go with {name}: leave out one of them"
                )
        return self

    @field_validator("attacks", mode="before")
    @classmethod
    def _suite(cls, value: object) -> object:
        if isinstance(value, str):
            return attacks_named(value)
        if not isinstance(value, list | tuple):
            return value
        listed = [attacks_named(entry) if isinstance(entry, str) else [entry] for entry in value]
        return [asked for entries in listed for asked in entries]

    @model_validator(mode="after")
    def _official_runs_autoattack(self) -> "EvaluateSettings":
        if self.engine == "official":
            others = [asked.attack for asked in self.attacks if asked.attack != "autoattack"]
            if others:
                raise ValueError(f"evaluate.engine official runs autoattack only, not {', '.join(others)}")
            if any(asked.options["version"] == "ten-steps" for asked in self.attacks):
                raise ValueError(
                    "evaluate.engine official has no AutoAttack of ten steps: that is torchattacks'"
                )
            if self.precision != "float32":
                raise ValueError("evaluate.engine official searches in float32 only")
        return self
