"""Attacks: pure functions of a model, a batch and a budget."""

from .projected_gradient import fgsm as fgsm
from .projected_gradient import pgd as pgd

ATTACKS = {"fgsm": fgsm, "pgd": pgd}
