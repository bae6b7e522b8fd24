"""The accuracies of a model during training: clean, and under one attack."""

import torch
from torch import Tensor, nn

from .. import distributed
from ..batch import Batch
from ..budget import Budget
from ..contracts import Attack, Classifier
from ..data.image_sets import ImageSet
from ..data.loaders import batches
from ..seeding import Keys
from .accuracy import BudgetOf
from .answers import as_judged, judge, predictions


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
    finish: bool = False,
) -> tuple[float, float]:
    """The clean accuracy and the accuracy under one attack, both in [0, 1], for validation during training.

    The attack searches on ``view``, and ``model`` judges in float32. With ``finish``, images that fool the view and not
    the model are attacked once more, on the model itself: an attack stops at them where the view is less exact.

    Under ``torchrun`` each batch is shared between the processes, and every process gets the same two
    numbers.
    """
    counts = torch.zeros(3, dtype=torch.int64, device=device)
    for batch in batches(images, batch_size=batch_size, device=device):
        if len(batch) == 0:  # a small last batch may leave a process without images
            continue
        right, held = _right_and_held(model, view, batch, budget_of, attack, seed, finish)
        counts += torch.stack([right.sum(), held.sum(), torch.full((), len(batch), device=device)])
    distributed.sum_([counts])
    right_n, held_n, n = counts.tolist()
    return right_n / n, held_n / n


def _right_and_held(
    model: nn.Module,
    view: Classifier,
    batch: Batch,
    budget_of: BudgetOf,
    attack: Attack,
    seed: int,
    finish: bool,
) -> tuple[Tensor, Tensor]:
    """Whether each image (B,) is classified correctly, and whether it still is after the attack."""
    right = predictions(model, batch.images) == batch.labels
    held = right.clone()
    if right.any():
        tried = batch.select(right)
        budget = budget_of(tried)
        keys = Keys(seed, "validation", tried.index)
        attacked = attack(view, tried.images, tried.labels, budget=budget, keys=keys)
        stands = ~judge(model, attacked.images, tried.images, tried.labels, budget)[0]
        if finish:
            stands &= ~_fooled_at_last(model, view, attacked.images, stands, tried, budget, attack, keys)
        held[right] = stands
    return right, held


def _fooled_at_last(
    model: nn.Module,
    view: Classifier,
    attacked: Tensor,
    stands: Tensor,
    tried: Batch,
    budget: Budget,
    attack: Attack,
    keys: Keys,
) -> Tensor:
    """Whether each image (B,) that fools the view and not the model falls to an attack on the model itself."""
    with torch.no_grad():
        again = stands & (view(attacked).argmax(dim=1) != tried.labels)
    fooled = torch.zeros_like(stands)
    if again.any():
        part, narrowed = tried.select(again), budget.select(again)
        with as_judged(model, part.images.device):
            second = attack(model, part.images, part.labels, budget=narrowed, keys=keys[again])
        fooled[again] = judge(model, second.images, part.images, part.labels, narrowed)[0]
    return fooled
