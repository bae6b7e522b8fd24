"""Attacks: pure functions of a model, a batch and a budget."""

from .auto_pgd import apgd as apgd
from .ensemble import worst_case as worst_case
from .minimum_margin import minimum_margin as minimum_margin
from .projected_gradient import fgsm as fgsm
from .projected_gradient import pgd as pgd

ATTACKS = {"apgd": apgd, "fgsm": fgsm, "minimum_margin": minimum_margin, "pgd": pgd}
