"""Budgets that a mask draws on the attacked model: a radius plane per image, drawn once and kept with the ledger.

A mask-aware (adaptive) attack is no attack of its own: it is any attack under the budget that a rule draws from the
model that it attacks (Zhang et al. 2024, arXiv 2406.00685, section 4 and tables 2 and 3). Every attack of an
evaluation meets the same planes, and ``verify`` reads them instead of drawing them anew, since a pixel at the
threshold may fall on the other side in another batch.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..batch import Batch
from ..budget import Budget, Linf
from ..data.image_sets import ImageSet
from ..errors import UserError
from ..importance.rules import Masked
from ..protocols import Rule, View
from ..rundir import write_atomically
from ..seeding import Keys
from .accuracy import BudgetOf, read_batch


def draw_radii(
    view: View,
    images: ImageSet,
    rule: Rule,
    full: Budget,
    *,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> tuple[Float[Tensor, "n c h w"], int]:
    """The radius of every pixel, from one clean pass on each image; and how many images had a flat map.

    Args:
        view: of the model that will be attacked.
        images: what will be attacked.
        rule: narrows the full budget; its radii have to be per pixel or image.
        full: what the attacker may do at most.
        batch_size: images of a pass.
        device: where to compute.
        seed: of rules that draw at random.

    Returns:
        (N, 1 or C, H, W) float32, on the CPU; and the number of images that have the full radius everywhere because
        their map was flat or not finite, or the mask file has none.
    """
    planes, flat = [], 0
    for positions in torch.split(torch.arange(len(images)), batch_size):
        batch = read_batch(images, positions, device, with_parts=True)
        budget = rule(view.probe(batch.images), batch, Keys(seed, "radii", batch.index), full)
        planes.append(budget.radius(batch.images).float().cpu())
        flat += int(budget.flat.sum()) if isinstance(budget, Masked) else 0
    return torch.cat(planes), flat


def keep_radii(path: Path, radii: Tensor, images: ImageSet) -> None:
    """Write the planes, each with the data-set index of its image."""
    tensors = {"radii": radii.contiguous(), "index": images.index.cpu()}
    write_atomically(path, partial(save_file, tensors))


def budgets_from(path: Path) -> BudgetOf:
    """The budgets of kept planes, found by data-set index.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        tensors = load_file(path)
        radii, index = tensors["radii"], tensors["index"]
    except (OSError, SafetensorError, KeyError):
        raise UserError(
            f"{path} is missing or damaged: remove the folder of this evaluation, and evaluate again."
        ) from None
    return budgets_of_planes(radii, index)


def budgets_of_planes(radii: Tensor, index: Tensor) -> BudgetOf:
    """The budgets of planes (N, 1 or C, H, W), found by the data-set index (N,) of each."""
    row = {i: position for position, i in enumerate(index.tolist())}

    def budget_of(batch: Batch) -> Linf:
        planes = radii[[row[i] for i in batch.index.tolist()]]
        return Linf(planes.to(batch.images.device))

    return budget_of
