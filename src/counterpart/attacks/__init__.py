"""Attacks: pure functions of a model, a batch and a budget. To add one: a file, a row in the table, a test."""

from typing import NamedTuple

from ..protocols import Attack
from .auto_attack import auto_attack as auto_attack
from .auto_pgd import apgd as apgd
from .ensemble import worst_case as worst_case
from .fast_adaptive_boundary import fab as fab
from .minimum_margin import minimum_margin as minimum_margin
from .projected_gradient import fgsm as fgsm
from .projected_gradient import pgd as pgd
from .random_search import random_search as random_search
from .rays_search import rays as rays
from .square_search import square as square
from .transfer import transfer as transfer

ALL = ("linf", "l2", "l1")


class Entry(NamedTuple):
    """An attack and the norms that it has."""

    attack: Attack
    norms: tuple[str, ...] = ALL


ATTACKS = {
    "apgd": Entry(apgd),
    "fab": Entry(fab),
    "fgsm": Entry(fgsm),
    "minimum-margin": Entry(minimum_margin),
    "pgd": Entry(pgd),
    "random-search": Entry(random_search),
    "rays": Entry(rays, ("linf",)),
    "square": Entry(square),
}
