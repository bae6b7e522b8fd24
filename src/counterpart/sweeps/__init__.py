"""Sweeps: many trainings of a recipe under settings that vary, compared by their validation accuracies.

Optuna keeps the study, in a journal on one machine or in a database for many; it is imported where a sweep begins.
"""

from .space import Space as Space
from .space import name_of as name_of
from .space import names as names
from .space import read_space as read_space
from .space import refuse_given as refuse_given
from .summary import Sweep as Sweep
from .trials import SweptTrial as SweptTrial
from .worker import sweep as sweep
