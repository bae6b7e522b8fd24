"""The samplers of Optuna that a sweep uses: one searches, the other gives a point that is known beforehand."""

from collections.abc import Mapping
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial


def tree_sampler(seed: int) -> TPESampler:
    """The tree-structured Parzen estimator (Bergstra et al. 2011), whose first ten trials are drawn at random."""
    return TPESampler(seed=seed % 2**32)


class FixedSampler(BaseSampler):
    """A sampler that gives each setting its text in a point of the grid."""

    def __init__(self, point: Mapping[str, str]) -> None:
        self.point = point

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The settings that are drawn together: none."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of settings that are drawn together: none."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The text of a setting's value."""
        return self.point[param_name]
