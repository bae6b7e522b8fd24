"""Attacks: pure functions of a model, a batch and a budget. To add one: a file, a row in the table, a test."""

from collections.abc import Callable
from typing import NamedTuple

from ..protocols import Attacked
from .auto_attack import auto_attack as auto_attack
from .auto_pgd import apgd as apgd
from .carlini_wagner import carlini_wagner as carlini_wagner
from .decoupled_direction_norm import ddn as ddn
from .deepfool import deepfool as deepfool
from .ensemble import worst_case as worst_case
from .fast_adaptive_boundary import fab as fab
from .fast_minimum_norm import fmn as fmn
from .minimum_margin import minimum_margin as minimum_margin
from .on_parts import single_staged as single_staged
from .on_parts import two_staged as two_staged
from .projected_gradient import fgsm as fgsm
from .projected_gradient import pgd as pgd
from .random_search import random_search as random_search
from .rays_search import rays as rays
from .square_search import square as square
from .transfer import transfer as transfer

ALL = ("linf", "l2", "l1")


class Entry(NamedTuple):
    """An ``Attack``, the norms that it has, and whether it aims at parts, and so takes those of the images as well."""

    attack: Callable[..., Attacked]
    norms: tuple[str, ...] = ALL
    parts: bool = False


ATTACKS = {
    "apgd": Entry(apgd),
    "carlini-wagner": Entry(carlini_wagner, ("l2",)),
    "ddn": Entry(ddn, ("l2",)),
    "deepfool": Entry(deepfool, ("linf", "l2")),
    "fab": Entry(fab),
    "fgsm": Entry(fgsm),
    "fmn": Entry(fmn),
    "minimum-margin": Entry(minimum_margin),
    "pgd": Entry(pgd),
    "random-search": Entry(random_search),
    "rays": Entry(rays, ("linf",)),
    "single-staged": Entry(single_staged, parts=True),
    "square": Entry(square),
    "two-staged": Entry(two_staged, parts=True),
}
