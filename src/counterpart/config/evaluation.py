"""The settings of an evaluation: attacks with their options, and suites of them."""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from ..errors import nearest
from ..wording import RENAMED_SUITES
from .values import Number, Section, setting

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
    "deepfool": {"steps": 50, "overshoot": 0.02, "candidates": 10},
    "ddn": {"steps": 100, "gamma": 0.05, "initial_norm": 1.0},
    "fmn": {"steps": 100, "step_size": 1.0, "gamma": 0.05},
    "carlini-wagner": {
        "search_steps": 9,
        "steps": 1000,
        "learning_rate": 0.01,
        "initial_weight": 1e-3,
        "confidence": 0.0,
    },
    "single-staged": {"share": 0.5, "steps": 100, "restarts": 5, "step_size": None},
    "two-staged": {
        "strategy": "random",
        "aimed": True,
        "published": False,
        "steps": 100,
        "restarts": 5,
        "step_size": None,
    },
    "autoattack": {"version": "standard"},
}
TRANSFERABLE = ("pgd", "fgsm", "apgd", "fab")


class EvaluationAttack(Section):
    """One attack of an evaluation; options that it does not have are refused."""

    attack: Literal[
        "pgd", "fgsm", "apgd", "fab", "square", "minimum-margin", "rays", "random-search", "single-staged",
        "two-staged", "autoattack", "deepfool", "ddn", "fmn", "carlini-wagner",
    ] = setting("which attack; the staged ones aim at the parts of a part model", default="pgd")  # fmt: skip
    loss: Literal["cross_entropy", "margin", "dlr", "kl_divergence"] | None = setting(
        "what it increases", default=None
    )
    target: int | None = setting(
        "aim at the wrong class of this rank, 1 being the most likely; default: untargeted",
        default=None,
        ge=1,
    )
    targets: int | None = setting("how many wrong classes, likeliest first", default=None, ge=1)
    steps: int | None = setting("gradient steps", default=None, ge=1)
    restarts: int | None = setting("independent starts", default=None, ge=1)
    step_size: Number | None = setting("step; default 2.5 eps / steps, of fmn 1", default=None, gt=0)
    eot: int | None = setting("passes that a gradient is averaged over", default=None, ge=1)
    queries: int | None = setting("questions to the model", default=None, ge=1)
    draws: int | None = setting("random points", default=None, ge=1)
    version: Literal["standard", "plus", "rand", "few-classes", "ten-steps"] | None = setting(
        "of AutoAttack", default=None
    )
    share: float | None = setting(
        "single-staged: weight of the loss of parts, beside 1 - share of the class; 1: the segmenter alone",
        default=None,
        ge=0,
        le=1,
    )
    strategy: Literal["untargeted", "random", "likely", "most-confident", "sorted"] | None = setting(
        "two-staged: what stage one leads the masks to: away from the true one; a mask of a random wrong class, of the "
        "wrong classes from the likeliest on, of the likeliest, or the masks that the model takes most surely for it",
        default=None,
    )
    aimed: bool | None = setting(
        "two-staged: stage two moves towards the class of that mask, not only away from the true one",
        default=None,
    )
    published: bool | None = setting(
        "two-staged: stage two starts at the clean image, the slip of the published code", default=None
    )
    overshoot: float | None = setting(
        "deepfool: how far to go beyond a boundary, as a share of the way to it", default=None, ge=0
    )
    candidates: int | None = setting(
        "deepfool: how many classes count, likeliest first, the true one among them", default=None, ge=2
    )
    gamma: float | None = setting(
        "ddn, fmn: share by which the length shrinks after a success and grows after a failure",
        default=None,
        gt=0,
        lt=1,
    )
    initial_norm: float | None = setting("ddn: the first length", default=None, gt=0)
    search_steps: int | None = setting(
        "carlini-wagner: how many weights of the margin are tried", default=None, ge=1
    )
    learning_rate: float | None = setting("carlini-wagner: of Adam", default=None, gt=0)
    initial_weight: float | None = setting("carlini-wagner: the first weight", default=None, gt=0)
    confidence: float | None = setting(
        "carlini-wagner: by how much a wrong logit must exceed the true one", default=None, ge=0
    )
    surrogate: str | None = setting(
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
    "none": [],
    "quick": [{"steps": 20}, {"loss": "margin", "steps": 50, "restarts": 5}],
    "mm3": [{"attack": "minimum-margin"}],
    "mm9": [{"attack": "minimum-margin", "targets": 9}],
    "mm+": [{"attack": "minimum-margin", "targets": 9, "steps": 100}],
    "autoattack-plus": [{"attack": "autoattack", "version": "plus"}],
    "autoattack-rand": [{"attack": "autoattack", "version": "rand"}],
    # What the tables of the PART paper most likely show: see docs/evaluation.md.
    "published-part": [
        {"attack": "pgd", "steps": 20, "step_size": 2 / 255},
        {"attack": "minimum-margin", "targets": 3, "steps": 20},
        {"attack": "autoattack", "version": "ten-steps"},
    ],
    # Whether anything beats AutoAttack on a part model: each meets what it left.
    "parts-worst-case": [
        {"attack": "autoattack"},
        {"attack": "single-staged"},
        {"attack": "two-staged", "strategy": "untargeted"},
        {"attack": "two-staged", "strategy": "random"},
        {"attack": "two-staged", "strategy": "likely"},
        {"attack": "two-staged", "strategy": "most-confident"},
        {"attack": "two-staged", "strategy": "sorted"},
        {"attack": "rays"},
    ],
    "autoattack-few-classes": [{"attack": "autoattack", "version": "few-classes"}],
    **{name: [{"attack": name}] for name in ATTACK_OPTIONS},
}


class Evaluate(Section):
    """How to evaluate."""

    attacks: tuple[EvaluationAttack, ...] = setting(
        "attacks, cheapest first: names with commas between them, such as pgd,autoattack (also apgd, fab, square, "
        "mm3, mm9, mm+, rays, random-search, fgsm, deepfool, ddn, fmn, carlini-wagner, autoattack-plus, "
        "autoattack-rand, autoattack-few-classes, quick, "
        "published-part, or none; for part models single-staged, two-staged, parts-worst-case), "
        "or a list with options such as '[{attack: pgd, loss: margin, steps: 50, restarts: 5}]'",
        default_factory=lambda: (EvaluationAttack(),),
    )
    norm: Literal["linf", "l2", "l1"] | None = setting(
        "norm of the budget; default: attack.norm", default=None
    )
    eps: Number | None = setting("radius of the budget; default: attack.eps", default=None, ge=0)
    eps_low: Number | None = setting(
        "a mask-aware attack: radius of the pixels that the mask of part.*, drawn on the attacked model, calls less "
        "important; the others get eps. Default: the same radius everywhere",
        default=None,
        ge=0,
    )
    split: Literal["test", "validation"] = setting("which images", default="test")
    weights: Literal["best", "last"] = setting(
        "best: by robust validation accuracy in the last phase; last: of the last epoch", default="best"
    )
    n: int | None = setting(
        "evaluate this many images, seeded and balanced; default: all", default=None, ge=1
    )
    individual: bool = setting(
        "let each attack meet all images that the model gets right, not only those that earlier attacks left",
        default=False,
    )
    parts: bool = setting(
        "part models: also pixel accuracy, mIoU and the IoU of each part: on clean images, and on those of PGD-20 on "
        "the class and of PGD-20 on the parts",
        default=False,
    )
    precision: Literal["float32", "bf16"] = setting(
        "of the search; bf16 ends with float32 attacks on what is left. Judged in float32 always",
        default="float32",
    )
    engine: Literal["counterpart", "official"] = setting(
        "who runs AutoAttack: ours, or the published package (extra bench)", default="counterpart"
    )
    batch_size: int = setting("images that an attack meets at once", default=256, ge=1)
    chunk_size: int = setting(
        "images per chunk: with one attack (or target), the unit that is committed and given to a process",
        default=500,
        ge=1,
    )
    save_images: bool = setting("keep the images that fool the model, for counterpart verify", default=True)

    @field_validator("attacks", mode="before")
    @classmethod
    def _suite(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        found: list[dict[str, object]] = []
        for name in value.split(","):
            if name.strip() in RENAMED_SUITES:
                raise ValueError(
                    f"evaluate.attacks {name.strip()!r} is called {RENAMED_SUITES[name.strip()]!r} now"
                )
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
            if any(one.version == "ten-steps" for one in self.attacks):
                raise ValueError(
                    "evaluate.engine official has no AutoAttack of ten steps: that is torchattacks'"
                )
            if self.precision != "float32":
                raise ValueError("evaluate.engine official searches in float32 only")
        return self
