"""The budgets of a mask-aware evaluation: one radius for every pixel, drawn once and kept with the ledger.

A mask-aware evaluation runs the usual attacks, but under a budget that a mask rule draws from the
attacked model itself (Zhang et al. 2024, arXiv 2406.00685, section 4 and tables 2 and 3).

Every attack of an evaluation meets the same planes of radii. ``verify`` reads them instead of drawing them
again, since a pixel at the threshold may fall on its other side when the batch is another.
"""

from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from ..batch import Batch
from ..budget import Budget, Linf
from ..checksums import load_tensors, save_tensors
from ..contracts import Rule, View
from ..data.image_sets import ImageSet
from ..errors import UserError
from ..importance.rules import Masked
from ..parsing.limits import refuse_large
from ..rundir import write_atomically
from ..seeding import Keys
from .accuracy import BudgetOf
from .batches import read_batch


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
    """The radius of every pixel, from one clean pass on each image, and the number of images with a flat map.

    Args:
        view: a view of the model that will be attacked.
        images: the N images that will be attacked.
        rule: the rule that narrows the full budget; its radii have to be per pixel or per image.
        full: the widest budget, which says how far the attacker may change an image at most.
        batch_size: the number of images in a pass.
        device: the device that computes.
        seed: the number from which rules that draw at random derive their draws.

    Returns:
        The radii (N, 1 or C, H, W) in float32, on the CPU, in the unit of the images. The number counts the
        images that have the full radius everywhere, because their map was flat or not finite or the mask file
        lacks them.
    """
    planes, flat = [], 0
    for positions in torch.split(torch.arange(len(images)), batch_size):
        batch = read_batch(images, positions, device, with_parts=True)
        budget = rule(view.probe(batch.images), batch, Keys(seed, "radii", batch.index), full)
        planes.append(budget.radius(batch.images).float().cpu())
        flat += int(budget.flat.sum()) if isinstance(budget, Masked) else 0
    return torch.cat(planes), flat


def keep_radii(path: Path, radii: Tensor, images: ImageSet) -> None:
    """Write the radius planes to a safetensors file, each with the data-set index of its image."""
    tensors = {"radii": radii.contiguous(), "index": images.index.cpu()}
    write_atomically(path, partial(save_tensors, tensors))


def budgets_from(path: Path) -> BudgetOf:
    """The budgets whose radius planes a file holds; a batch finds its planes by data-set index.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        refuse_large(path, "WEIGHTS")
        tensors = load_tensors(path)
        radii, index = tensors["radii"], tensors["index"]
    except (OSError, SafetensorError, KeyError, ValueError):
        raise UserError(
            f"{path} is missing or damaged: remove the folder of this evaluation, and evaluate again."
        ) from None
    return budgets_of_planes(radii, index)


def budgets_of_planes(radii: Tensor, index: Tensor) -> BudgetOf:
    """The budgets whose radius planes are given; a batch finds its planes by data-set index.

    Args:
        radii: the planes (N, 1 or C, H, W).
        index: the data-set index (N,) of the image that each plane belongs to.
    """
    row = {i: position for position, i in enumerate(index.tolist())}

    def budget_of(batch: Batch) -> Linf:
        planes = radii[[row[i] for i in batch.index.tolist()]]
        return Linf(planes.to(batch.images.device))

    return budget_of
