"""Attacks: pure functions of a model, a batch and a budget.

To add one: a file, a row of ``catalogue/attacks.py``, a test.
"""

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
from .patch import patch as patch
from .projected_gradient import fgsm as fgsm
from .projected_gradient import pgd as pgd
from .random_search import random_search as random_search
from .rays_search import rays as rays
from .sparse_projected_gradient import sparse_pgd as sparse_pgd
from .square_search import square as square
from .transfer import transfer as transfer
