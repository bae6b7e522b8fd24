"""Measurements of five behaviours that tell whether a model's robustness rests on obfuscated gradients.

Gradients are obfuscated if they mislead the attacks that follow them: the model then looks more robust than
it is. Athalye et al. 2018 (arXiv 1802.00420, section 3.1) name the signs:

- attacks of one step beat iterative ones;
- black-box attacks, which see only answers, beat white-box attacks, which use gradients;
- unbounded attacks do not reach 100 % success;
- random sampling finds adversarial examples where attacks do not;
- success does not grow with the radius.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import comb

from ..attacks.auto_pgd import apgd
from ..attacks.projected_gradient import fgsm, pgd
from ..attacks.random_search import random_search
from ..attacks.square_search import square
from ..contracts import Attack, NamedAttack
from .ledger import LedgerRow

RADII = (0.25, 0.5, 1.0, 2.0, 4.0)
FEWEST = 30  # the fewest images that a verdict may rest on: fewer can neither clear nor convict
NOISE = 0.01  # the share of images that luck alone may move
LUCK = 0.05  # the chance of as many images by luck below which luck is no explanation
UNBOUNDED = {"linf": 1.0, "l2": 1e3, "l1": 1e6}  # radii that reach all of [0, 1], whatever the image size

Evaluate = Callable[[Sequence[NamedAttack], float, str], list[LedgerRow]]
"""A function from attacks, a radius and the name of a ledger to the rows of an evaluation.

Each attack meets all images that the model gets right.
"""


@dataclass(frozen=True)
class Behaviour:
    """One measured behaviour.

    Attributes:
        name: the behaviour that honest gradients show.
        numbers: a mapping from the name of each measurement to its value, which is the share in [0, 1] of the
            correctly classified images that fell.
        honest: whether the gradients look honest; None where there are not enough images to tell.
        verdict: a clause that says what was seen.
        n: the number of images that it rests on.
    """

    name: str
    numbers: dict[str, float]
    honest: bool | None
    verdict: str
    n: int = 0


def audit(
    evaluate: Evaluate, norm: str, eps: float, *, steps: int, queries: int, draws: int
) -> list[Behaviour]:
    """The five behaviours, measured on the images that the model gets right.

    There is no verdict where these images are fewer than ``FEWEST``, and no behaviour at all where there are
    none.

    Args:
        evaluate: the function that runs attacks at a radius.
        norm: the norm of the budget: "linf", "l2" or "l1".
        eps: the radius of the budget, in the unit of images in [0, 1].
        steps: the number of steps of each iterative attack.
        queries: the number of queries that the black-box attack may make for each image.
        draws: the number of random points that the random search tries for each image.
    """
    white = [pgd_of(steps), _named("APGD", partial(apgd, steps=steps))]
    attacks = [
        _named("FGSM", fgsm),
        *white,
        _named("Square", partial(square, queries=queries)),
        _named("random search", partial(random_search, draws=draws)),
    ]
    rows = [row for row in evaluate(attacks, eps, "bounded") if row.right]
    if not rows:
        return []
    unbounded = [row for row in evaluate(white[:1], UNBOUNDED[norm], "unbounded") if row.right]
    sweep = {}
    for factor in RADII:
        radius = min(factor * eps, UNBOUNDED[norm])
        here = evaluate(white[:1], radius, f"radius {factor:g}") if factor != 1 else rows
        sweep[f"{factor:g} eps"] = _share([row for row in here if row.right], "PGD")
    behaviours = [
        _iterative(rows),
        _white_box(rows),
        _reaches_all(unbounded),
        _random_finds_nothing(rows),
        _grows(sweep, len(rows)),
    ]
    return [with_its_basis(behaviour, len(rows)) for behaviour in behaviours]


def beyond_luck(share: float, n: int) -> bool:
    """Whether a share of n images is more than luck explains, which moves each image with chance ``NOISE``.

    One image of forty is a share of 2.5 %, and luck alone does that in a third of all audits. So the exact binomial
    chance of at least as many images must lie below ``LUCK``.
    """
    count = round(share * n)
    fewer = sum(comb(n, k) * NOISE**k * (1 - NOISE) ** (n - k) for k in range(count))
    return count > 0 and 1 - fewer < LUCK


def with_its_basis(behaviour: Behaviour, n: int) -> Behaviour:
    """The behaviour with the number of images that it rests on; without a verdict where they are too few."""
    if n >= FEWEST:
        return replace(behaviour, n=n)
    verdict = f"not enough images to tell: {n} of at least {FEWEST}"
    return replace(behaviour, n=n, honest=None, verdict=verdict)


def pgd_of(steps: int) -> NamedAttack:
    """The PGD of an audit."""
    return _named("PGD", partial(pgd, steps=steps))


def _named(name: str, attack: Attack) -> NamedAttack:
    return NamedAttack(name, attack, name)


def _share(rows: Sequence[LedgerRow], *names: str) -> float:
    """The share of images that at least one of the named attacks felled."""
    return sum(not set(names).isdisjoint(row.fooled) for row in rows) / len(rows)


def _new(rows: Sequence[LedgerRow], name: str, *others: str) -> float:
    """The share of images that one attack felled and none of the others did."""
    return sum(name in row.fooled and set(others).isdisjoint(row.fooled) for row in rows) / len(rows)


def _iterative(rows: Sequence[LedgerRow]) -> Behaviour:
    one_step, many_steps = _share(rows, "FGSM"), _share(rows, "PGD")
    honest = not beyond_luck(one_step - many_steps, len(rows))
    words = (
        "PGD finds at least what one step finds"
        if honest
        else "one step finds more than many: gradients mislead"
    )
    return Behaviour("iterative attacks beat one step", {"FGSM": one_step, "PGD": many_steps}, honest, words)


def _white_box(rows: Sequence[LedgerRow]) -> Behaviour:
    black, white = _share(rows, "Square"), _share(rows, "PGD", "APGD")
    new = _new(rows, "Square", "PGD", "APGD")
    honest = not beyond_luck(new, len(rows))
    words = (
        "Square finds nothing that gradients do not"
        if honest
        else f"Square alone fools {new:.1%}: gradients miss what queries find"
    )
    return Behaviour(
        "white-box attacks beat black-box",
        {"Square": black, "PGD and APGD": white, "Square alone": new},
        honest,
        words,
    )


def _reaches_all(rows: Sequence[LedgerRow]) -> Behaviour:
    share = _share(rows, "PGD")
    honest = not beyond_luck(1 - share, len(rows))
    words = (
        "without a bound every image falls"
        if honest
        else "even without a bound some images stand: the attack is lost"
    )
    return Behaviour("unbounded attacks reach 100 %", {"PGD, unbounded": share}, honest, words)


def _random_finds_nothing(rows: Sequence[LedgerRow]) -> Behaviour:
    share, new = _share(rows, "random search"), _new(rows, "random search", "PGD", "APGD")
    honest = new == 0
    words = (
        "random points fool no image that gradients do not"
        if honest
        else f"random points alone fool {new:.1%}"
    )
    return Behaviour(
        "random search finds nothing new", {"random search": share, "random search alone": new}, honest, words
    )


def _grows(sweep: dict[str, float], n: int) -> Behaviour:
    values = list(sweep.values())
    falls = any(beyond_luck(before - after, n) for before, after in pairwise(values))
    honest = not falls and (values[-1] > values[0] or values[0] > 1 - NOISE)
    words = "success grows with the radius" if honest else "success does not grow with the radius"
    return Behaviour("success grows with the radius", sweep, honest, words)
