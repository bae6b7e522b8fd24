"""When a trial ends early: where both of its validation accuracies lie below the median of the others."""

import math
from statistics import median
from typing import TYPE_CHECKING

from ..config import Config
from .study import SharedStudy

if TYPE_CHECKING:
    import optuna

FEWEST_TRIALS = 5  # that are over before any is pruned
_SHARE = 0.2  # of the epochs, before which no trial is pruned


class Pruned(Exception):
    """A trial shall end early."""


def make_pruner(config: Config) -> "optuna.pruners.BasePruner":
    """The rule for robust accuracy: pruned is what lies below the median of the trials before it at the same epoch.

    No trial is pruned within the epochs without an attack, those in which the radius grows, and a fifth of the rest.
    """
    from optuna.pruners import MedianPruner

    train = config.train
    unready = train.clean_epochs + max(
        1, math.ceil(config.attack.eps_warmup), math.ceil(_SHARE * train.epochs)
    )
    return MedianPruner(n_startup_trials=FEWEST_TRIALS, n_warmup_steps=unready)


def is_hopeless(shared: SharedStudy, trial: "optuna.Trial", epoch: int) -> bool:
    """Whether a trial is below the median of the others in robust and in natural accuracy at an epoch.

    The best of its epochs so far count. A trial that is low in robust accuracy alone may be an end of the trade-off,
    and is trained.
    """
    from optuna.trial import TrialState

    if not trial.should_prune():
        return False
    here, others = 0.0, []
    for other in shared.trials():
        naturals = other.user_attrs.get("naturals", [])[: epoch + 1]
        if other.number == trial.number:
            here = max(naturals, default=0.0)
        elif other.state == TrialState.COMPLETE and len(naturals) > epoch:
            others.append(naturals[epoch])
    return not others or here < median(others)
