"""Objectives: an attack and a loss, nothing else."""

from .adversarial import adversarial as adversarial
from .mart import mart as mart
from .parts import with_parts as with_parts
from .single_step import n_fgsm as n_fgsm
from .standard import standard as standard
from .trades import trades as trades
