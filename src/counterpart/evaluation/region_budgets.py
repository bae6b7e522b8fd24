"""Budgets of a region: the full radius inside, and nothing outside."""

import torch
from jaxtyping import Bool
from torch import Tensor

from ..batch import Batch
from ..budget import L1, L2, Budget, Linf
from .accuracy import BudgetOf

BALLS = {"l2": L2, "l1": L1}
NORMS = ("linf", *BALLS)


def budgets_of_region(norm: str, eps: float, mask: Bool[Tensor, "m 1 h w"], index: Tensor) -> BudgetOf:
    """The budgets of images that may move in a region alone; a batch finds its masks by data-set index.

    Args:
        norm: one of ``NORMS``.
        eps: the radius inside the region; for l2 and l1 that of the whole perturbation.
        mask: which pixels may move.
        index: the data-set index (M,) of the image that each mask belongs to.
    """
    row = {i: position for position, i in enumerate(index.tolist())}

    def budget_of(batch: Batch) -> Budget:
        inside = mask[[row[i] for i in batch.index.tolist()]].to(batch.images.device)
        if norm == "linf":
            return Linf(torch.where(inside, eps, 0.0))
        return BALLS[norm](eps, movable=inside.float())

    return budget_of
