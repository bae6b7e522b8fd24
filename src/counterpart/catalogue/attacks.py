"""The attacks that an evaluation knows, and suites of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .entries import Entry, Option

EVERY_NORM = ("linf", "l2", "l1")
FREE_PIXELS = ("l0", "patch")  # budgets in which a few pixels take any value


@dataclass(frozen=True)
class AttackFacts:
    """The facts about an attack that other parts of the program read.

    Attributes:
        norms: the norms of the budgets that it can keep to; by default those with a radius.
        by_gradient: whether it follows gradients. An attack that does not still works where gradients are
            masked.
        of_parts: whether it aims at the parts of a part model, and so takes the parts of the images.
        transferable: whether it can search on another model instead, which the option ``surrogate`` names.
        suite: for an attack that stands for several attacks, the function of (version, norm, classes) that
            lists them.
        nearest: whether it looks for the nearest adversarial image, and so tells the distance to it.
    """

    norms: tuple[str, ...] = EVERY_NORM
    by_gradient: bool = True
    of_parts: bool = False
    transferable: bool = False
    suite: str = ""
    nearest: bool = False


LOSS = Option(
    "loss", str, "cross_entropy", "the loss that the attack increases",
    choices=("cross_entropy", "margin", "dlr", "kl_divergence"), in_name=" {}",
)  # fmt: skip
TARGET = Option(
    "target", int, None,
    "move towards the wrong class of this rank, 1 being the one that the clean image is most like; by default "
    "the attack "
    "moves away from the true class instead",
    low=1, in_name=" target {}",
)  # fmt: skip
NO_OTHER_START = 1  # the number of restarts that the name of an attack leaves out


def _steps(count: int) -> Option:
    return Option("steps", int, count, "gradient steps", low=1, in_name="-{}", unless=None)


def _restarts(count: int) -> Option:
    return Option("restarts", int, count, "independent starts", low=1, in_name="x{}", unless=NO_OTHER_START)


def _count(name: str, count: int, sentence: str) -> Option:
    return Option(name, int, count, sentence, low=1, in_name="-{}", unless=None)


STEP_SIZE = Option(
    "step_size", float, None, "length of a step; by default 2.5 eps / steps", above=0, in_name=" step {}"
)
EOT = Option(
    "eot",
    int,
    1,
    "passes that a gradient is averaged over, for models with random answers",
    low=1,
    in_name=" eot {}",
)
SHARE = Option(
    "share", float, 0.5,
    "weight of the loss of parts; the loss of the class gets the rest, so that 1 attacks the segmenter alone",
    low=0, high=1, in_name=" share {}",
)  # fmt: skip
STRATEGY = Option(
    "strategy", str, "random",
    "where stage one leads the predicted parts: untargeted: away from the true ones; random: to a mask of a "
    "random wrong "
    "class; likely: to masks of the wrong classes, the likeliest first; most-confident: to a mask of the "
    "likeliest wrong "
    "class; sorted: to the masks that the model takes most surely for it",
    choices=("untargeted", "random", "likely", "most-confident", "sorted"), in_name=" {}",
)  # fmt: skip
AIMED = Option(
    "aimed", bool, True,
    "stage two moves towards the class of the mask, and not only away from the true class",
    in_name=" unaimed", unless=True,
)  # fmt: skip
PUBLISHED = Option(
    "published", bool, False,
    "stage two starts at the clean image, which is a slip of the published code",
    in_name=" published", unless=False,
)  # fmt: skip
VERSION = Option(
    "version", str, "standard", "which published list of attacks AutoAttack runs",
    choices=("standard", "plus", "rand", "few-classes", "ten-steps"),
)  # fmt: skip

_ENTRIES = (
    Entry(
        "pgd", "PGD", "attacks.projected_gradient:pgd",
        "Projected gradient descent: steps along the sign of the gradient, kept inside the budget.",
        AttackFacts(transferable=True),
        (_steps(20), _restarts(1), LOSS, TARGET, STEP_SIZE, EOT),
    ),
    Entry(
        "fgsm", "FGSM", "attacks.projected_gradient:fgsm",
        "The fast gradient sign method: a single step of the whole radius.",
        AttackFacts(transferable=True),
        (LOSS, TARGET, EOT),
    ),
    Entry(
        "apgd", "APGD", "attacks.auto_pgd:apgd",
        "PGD that chooses its own step size: the attack that AutoAttack begins with.",
        AttackFacts(transferable=True),
        (_steps(100), _restarts(1), LOSS, TARGET, EOT),
    ),
    Entry(
        "fab", "FAB", "attacks.fast_adaptive_boundary:fab",
        "The fast adaptive boundary attack: it looks for the nearest adversarial image.",
        AttackFacts(transferable=True, nearest=True),
        (_steps(100), _restarts(1), TARGET),
    ),
    Entry(
        "square", "Square", "attacks.square_search:square",
        "A random search that tries coloured squares; it only asks for the model's answers.",
        AttackFacts(by_gradient=False),
        (_count("queries", 5000, "questions to the model about each image"),),
    ),
    Entry(
        "minimum-margin", "MM", "attacks.minimum_margin:minimum_margin",
        "The minimum-margin attack: PGD towards each of several likely wrong classes, of which the closest counts.",
        AttackFacts(),
        (
            Option(
                "targets", int, 3, "how many wrong classes are tried, the likeliest first", low=1, in_name="{}",
                unless=None,
            ),
            _steps(20),
        ),
    ),
    Entry(
        "rays", "RayS", "attacks.rays_search:rays",
        "A search along rays that knows nothing but which class the model answers.",
        AttackFacts(norms=("linf",), by_gradient=False),
        (_count("queries", 10000, "questions to the model about each image"),),
    ),
    Entry(
        "random-search", "random search", "attacks.random_search:random_search",
        "Random points of the budget, which every real attack must beat.",
        AttackFacts(norms=(*EVERY_NORM, *FREE_PIXELS), by_gradient=False),
        (_count("draws", 100, "random points that are tried for each image"),),
    ),
    Entry(
        "deepfool", "DeepFool", "attacks.deepfool:deepfool",
        "A few steps towards the nearest boundary, as if the model were linear. It is fast, and its distance is an "
        "upper bound.",
        AttackFacts(norms=("linf", "l2"), nearest=True),
        (
            _steps(50),
            Option(
                "overshoot", float, 0.02, "how far to go beyond a boundary, as a share of the way to it",
                low=0, in_name=" overshoot {}",
            ),
            Option(
                "candidates", int, 10, "how many classes count, the likeliest first and the true one among them",
                low=2, in_name=" candidates {}",
            ),
        ),
    ),
    Entry(
        "ddn", "DDN", "attacks.decoupled_direction_norm:ddn",
        "Looks for the nearest adversarial image on a sphere that shrinks after a success and grows after a failure.",
        AttackFacts(norms=("l2",), nearest=True),
        (
            _steps(100),
            Option(
                "gamma", float, 0.05, "share by which the sphere shrinks or grows", above=0, below=1,
                in_name=" gamma {}",
            ),
            Option("initial_norm", float, 1.0, "radius of the first sphere", above=0, in_name=" from {}"),
        ),
    ),
    Entry(
        "fmn", "FMN", "attacks.fast_minimum_norm:fmn",
        "The fast minimum-norm attack: it works like DDN, but in every norm, with a radius that follows the "
        "boundary.",
        AttackFacts(nearest=True),
        (
            _steps(100),
            Option("step_size", float, 1.0, "length of the first step", above=0, in_name=" step {}"),
            Option(
                "gamma", float, 0.05, "share by which the ball shrinks or grows at first", above=0, below=1,
                in_name=" gamma {}",
            ),
        ),
    ),
    Entry(
        "carlini-wagner", "C&W", "attacks.carlini_wagner:carlini_wagner",
        "Minimises the distance and a margin of the logits together, for several weights of the margin: slow "
        "and strong.",
        AttackFacts(norms=("l2",), nearest=True),
        (
            Option(
                "search_steps", int, 9, "how many weights of the margin are tried", low=1, in_name="-{}x", unless=None
            ),
            Option("steps", int, 1000, "gradient steps for each weight", low=1, in_name="{}", unless=None),
            Option("learning_rate", float, 0.01, "learning rate of Adam", above=0, in_name=" rate {}"),
            Option("initial_weight", float, 1e-3, "the first weight of the margin", above=0, in_name=" weight {}"),
            Option(
                "confidence", float, 0.0, "by how much a wrong logit must exceed the true one", low=0,
                in_name=" confidence {}",
            ),
        ),
    ),
    Entry(
        "patch", "patch", "attacks.patch:patch",
        "Projected gradient descent in one square window after the other, where the gradient is largest first: the "
        "worst place counts.",
        AttackFacts(norms=("patch",), transferable=True),
        (
            _steps(20), _restarts(1), LOSS,
            Option("search", str, "pgd", "the attack within a window", choices=("pgd", "apgd"), in_name=" by {}"),
            Option(
                "stride", int, None, "pixels from a window to the next; by default half of the window's side, and 1 is "
                "every window", low=1, in_name=" stride {}",
            ),
            Option(
                "windows", int, None, "how many windows are tried for each image; by default all", low=1,
                in_name=" windows {}",
            ),
        ),
    ),
    Entry(
        "sparse-pgd", "sparse PGD", "attacks.sparse_projected_gradient:sparse_pgd",
        "Gradient steps on the values of a few pixels, and on which pixels these are.",
        AttackFacts(norms=("l0",), transferable=True),
        (
            _steps(300), _restarts(1), LOSS,
            Option(
                "projected", bool, False, "only the chosen pixels learn their values, and not all of them",
                in_name=" projected", unless=False,
            ),
        ),
    ),
    Entry(
        "single-staged", "single-staged", "attacks.on_parts:single_staged",
        "PGD on the class and the predicted parts of a part model at once.",
        AttackFacts(of_parts=True),
        (_steps(100), _restarts(5), STEP_SIZE, SHARE),
    ),
    Entry(
        "two-staged", "two-staged", "attacks.on_parts:two_staged",
        "First move the predicted parts of a part model, then the class.",
        AttackFacts(of_parts=True),
        (_steps(100), _restarts(5), STEP_SIZE, STRATEGY, AIMED, PUBLISHED),
    ),
    Entry(
        "autoattack", "AutoAttack", "attacks.auto_attack:auto_attack",
        "The field's yardstick: APGD on two losses, FAB and Square, each on the images that withstood those "
        "before it.",
        AttackFacts(suite="attacks.auto_attack:suite"),
        (VERSION,),
    ),
)  # fmt: skip
ATTACKS = {entry.key: entry for entry in _ENTRIES}

# The lists of attacks that have a name; each single attack has one as well.
SUITES: dict[str, Sequence[Mapping[str, object]]] = {
    "none": [],
    "quick": [{"steps": 20}, {"loss": "margin", "steps": 50, "restarts": 5}],
    "mm3": [{"attack": "minimum-margin"}],
    "mm9": [{"attack": "minimum-margin", "targets": 9}],
    "mm+": [{"attack": "minimum-margin", "targets": 9, "steps": 100}],
    "autoattack-plus": [{"attack": "autoattack", "version": "plus"}],
    "autoattack-rand": [{"attack": "autoattack", "version": "rand"}],
    "autoattack-few-classes": [{"attack": "autoattack", "version": "few-classes"}],
    # These are most likely the attacks in the tables of the PART paper: see docs/evaluation.md.
    "published-part": [
        {"attack": "pgd", "steps": 20, "step_size": 2 / 255},
        {"attack": "minimum-margin", "targets": 3, "steps": 20},
        {"attack": "autoattack", "version": "ten-steps"},
    ],
    # These show whether anything beats AutoAttack on a part model.
    # Each attack meets the images that withstood the attacks before it.
    "parts-worst-case": [
        {"attack": "autoattack"},
        {"attack": "single-staged"},
        *({"attack": "two-staged", "strategy": strategy} for strategy in STRATEGY.choices),
        {"attack": "rays"},
    ],
}
