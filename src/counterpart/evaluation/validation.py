"""The accuracies of a model during training: clean, and under one attack."""

import torch
from torch import Tensor, nn

from .. import distributed
from ..batch import Batch
from ..contracts import Attack, Classifier
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..seeding import Keys
from .accuracy import BudgetOf
from .answers import judge, predictions


def quick(
    model: nn.Module,
    view: Classifier,
    images: ImageSet,
    *,
    budget_of: BudgetOf,
    attack: Attack,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> tuple[float, float]:
    """The clean accuracy and the accuracy under one attack, both in [0, 1], for validation during training.

    Under ``torchrun`` each batch is shared between the processes, and every process gets the same two
    numbers.
    """
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    for batch in batches(images, batch_size=batch_size, device=device):
        if len(batch) == 0:  # a small last batch may leave a process without images
            continue
        right, held = _right_and_held(model, view, batch, budget_of, attack, seed)
        counts += torch.stack([right.sum(), held.sum(), torch.tensor(len(batch), device=device)])
    distributed.sum_([counts])
    right_n, held_n, n = counts.tolist()
    return right_n / n, held_n / n


def _right_and_held(
    model: nn.Module, view: Classifier, batch: Batch, budget_of: BudgetOf, attack: Attack, seed: int
) -> tuple[Tensor, Tensor]:
    """Whether each image (B,) is classified correctly, and whether it still is after the attack."""
    right = predictions(model, batch.images) == batch.labels
    held = right.clone()
    if right.any():
        tried = batch.select(right)
        budget = budget_of(tried)
        keys = Keys(seed, "validation", tried.index)
        attacked = attack(view, tried.images, tried.labels, budget=budget, keys=keys)
        held[right] = ~judge(model, attacked.images, tried.images, tried.labels, budget)[0]
    return right, held
