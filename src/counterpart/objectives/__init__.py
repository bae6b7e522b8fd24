"""Objectives: an attack and a loss, nothing else."""

from .adversarial import adversarial as adversarial
from .standard import standard as standard
