"""Several attacks as one: each meets only the images that no earlier one fooled."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, NamedAttack, Probe
from ..seeding import Keys
from .starts import images_of


def worst_case(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    attacks: Sequence[NamedAttack] | Callable[[int], Sequence[NamedAttack]],
) -> Attacked:
    """Run ``attacks`` in order, cheapest first, each on what the others left.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations.
        keys: each attack draws under its own name.
        start: the start that every attack is given.
        attacks: the attacks in order, or a function that returns them for K classes.

    Returns:
        For each image the first adversarial one found, else the clean image. Passes count the one that judges the
        clean image, and one that judges what each attack returned.
    """
    check_unit_range(images)
    perturbed = images.clone()
    with torch.no_grad():
        logits = model(images)
    check_labels(labels, logits.shape[1])
    survivors = (logits.argmax(dim=1) == labels).nonzero()[:, 0]
    forwards, backwards = torch.ones_like(labels), torch.zeros_like(labels)
    begin = None if start is None else images_of(start)
    for named in attacks(logits.shape[1]) if callable(attacks) else attacks:
        if len(survivors) == 0:
            break
        attacked = named.attack(
            model,
            images[survivors],
            labels[survivors],
            budget=budget.select(survivors),
            keys=keys[survivors].fold(named.name),
            start=None if begin is None else begin[survivors],
        )
        with torch.no_grad():
            fooled = model(attacked.images).argmax(dim=1) != labels[survivors]
        forwards[survivors] += attacked.forwards + 1
        backwards[survivors] += attacked.backwards
        perturbed[survivors[fooled]] = attacked.images[fooled]
        survivors = survivors[~fooled]
    return Attacked(perturbed, forwards, backwards)
