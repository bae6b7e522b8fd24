"""AutoAttack, the yardstick of robustness, as a list of attacks that an evaluation can commit one by one.

Croce and Hein 2020, arXiv 2003.01690. For 10 classes and more it is exactly the published protocol: order, targets,
restarts, steps, queries. With fewer classes the published code stops with an index error. Ours aims at all K - 1 wrong
classes then; and for K < 4, where the targeted DLR loss is undefined, it takes the margin loss instead. In L1 our APGD
always begins with larger radii, and theirs only in "standard".
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from ..budget import Budget
from ..contracts import Attack, Attacked, Classifier, NamedAttack, Probe
from ..devices import exact_float32
from ..losses.classification import dlr, margin
from ..seeding import Keys
from .auto_pgd import apgd
from .ensemble import worst_case
from .fast_adaptive_boundary import fab
from .square_search import square

VERSIONS = ("standard", "plus", "rand", "few-classes", "ten-steps")


RAND_PASSES = 20  # the passes that gradients of the published version rand are averaged over


def suite(
    version: str, norm: str, classes: int, *, eot: int = RAND_PASSES, to_the_end: bool = False
) -> list[NamedAttack]:
    """The attacks of an AutoAttack version, in order, with an entry for each target.

    Args:
        version: "standard", "plus" (more restarts, untargeted FAB and APGD on the DLR loss as well), "rand" (for
            models with random answers: gradients averaged over 20 passes), or "few-classes": APGD on cross-entropy,
            untargeted FAB and Square, the suite of the part-based paper (Sitawarin et al. 2023, arXiv 2209.09117) for
            fewer than 4 classes, weaker than "standard" here; or "ten-steps": what torchattacks 3.4.0 calls AutoAttack
            (10 steps for 100, Square's schedule rescaled) and some papers report as such. It is weaker, and the names
            of its lines say so.
        norm: "linf", "l2" or "l1".
        classes: K, the number of classes.
        eot: the passes that "rand" averages gradients over; others than 20 are in the names.
        to_the_end: "rand" takes every step, also where the answer is wrong already.
    """
    if version not in VERSIONS:
        raise ValueError(f"AutoAttack has no version {version!r}; it has {', '.join(VERSIONS)}.")
    if classes < 2:
        raise ValueError(f"AutoAttack needs at least 2 classes, got {classes}.")
    wrong = min(9, classes - 1)
    ratio = dlr if classes >= 3 else margin
    aimed = dlr if classes >= 4 else margin

    def alone(name: str, attack: Attack, by_gradient: bool = True) -> NamedAttack:
        return NamedAttack(name, attack, name, by_gradient=by_gradient, key=key_of(name))

    def each_target(name: str, attack: Callable[..., Attacked], count: int) -> list[NamedAttack]:
        return [
            NamedAttack(f"{name} target {k}", partial(attack, target=k), name, key=key_of(name))
            for k in range(1, count + 1)
        ]

    if version == "rand":
        ending = "" if eot == RAND_PASSES else f" eot {eot}"
        each = partial(apgd, eot=eot, to_the_end=True) if to_the_end else partial(apgd, eot=eot)
        return [alone(f"apgd-ce{ending}", each), alone(f"apgd-dlr{ending}", partial(each, loss=ratio))]
    if version == "ten-steps":
        short = partial(square, rescale_schedule=True)
        return [
            alone("10-step apgd-ce", partial(apgd, steps=10)),
            *each_target("10-step apgd-t", partial(apgd, loss=aimed, steps=10), wrong),
            *each_target("10-step fab-t", partial(fab, steps=10), wrong),
            alone("10-step square", short, False),
        ]
    if version == "few-classes":
        return [alone("apgd-ce", apgd), alone("fab", fab), alone("square", square, False)]
    apgd_t = each_target(
        "apgd-t",
        partial(apgd, loss=aimed),
        min(5, wrong) if norm == "l1" and version == "standard" else wrong,
    )
    fab_t = each_target("fab-t", fab, wrong)
    if version == "plus":
        return [
            alone("apgd-ce", partial(apgd, restarts=5)),
            alone("apgd-dlr", partial(apgd, loss=ratio, restarts=5)),
            alone("fab", partial(fab, restarts=5)),
            alone("square", square, False),
            *apgd_t,
            *fab_t,
        ]
    restarts = 5 if norm == "l1" else 1
    return [
        alone("apgd-ce", partial(apgd, restarts=restarts)),
        *apgd_t,
        *fab_t,
        alone("square", square, False),
    ]


def key_of(line: str) -> str:
    """The catalogue's name of the attack behind a line of AutoAttack: "fab" for "fab-t" and for "10-step fab-t"."""
    return line.removeprefix("10-step ").partition("-")[0]


def finish(view: Classifier, norm: str, classes: int) -> list[NamedAttack]:
    """The attacks that end a search in reduced precision: APGD on cross-entropy and on three targets, in float32.

    Args:
        view: a float32 view of the model. These attacks search on it, whatever model they are given.
        norm: "linf", "l2" or "l1".
        classes: K, the number of classes.
    """
    standard = suite("standard", norm, classes)
    chosen = [named for named in standard if named.line == "apgd-ce"]
    chosen += [named for named in standard if named.line == "apgd-t"][:3]
    return [
        NamedAttack(f"float32 {named.name}", partial(_search_on, view, named.attack), f"float32 {named.line}")
        for named in chosen
    ]


def _search_on(
    view: Classifier, attack: Attack, model: Classifier, images: Tensor, labels: Tensor, **options: Any
) -> Attacked:
    with exact_float32():
        return attack(view, images, labels, **options)


def auto_attack(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    version: str = "standard",
) -> Attacked:
    """AutoAttack as one attack: the worst case over ``suite(version, budget.norm, classes)``.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel.
        keys: the source of all randomness.
        start: given to every attack instead of its own first start.
        version: see ``suite``.

    Returns:
        For each image the first adversarial one found, else the clean image.
    """
    attacks = partial(suite, version, budget.norm)
    return worst_case(model, images, labels, budget=budget, keys=keys, start=start, attacks=attacks)
