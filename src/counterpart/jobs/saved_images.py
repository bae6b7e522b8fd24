"""The adversarial images that the evaluations of a target have saved, with the classes that they should have."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..data.image_sets import balanced_subset
from ..errors import UserError
from ..evaluation.ledger import Ledger, read_images
from ..evaluation.weights import weights_hash
from .target import Target


def saved_images(target: Target) -> Iterator[tuple[Tensor, Tensor]]:
    """The images (F, C, H, W) of each file that evaluations of this model on these images saved, and their labels (F,).

    Evaluations of other weights, or on other images than the target's, are passed over.

    Raises:
        UserError: a file is damaged.
    """
    if not target.has_folder:
        return
    now = weights_hash(target.model)
    images = target.images
    for folder in target.run.evaluation_folders:
        identity = Ledger(folder, 0).identity()
        if identity.get("model") != now:
            continue
        if identity.get("data") != [images.name, images.split, images.fingerprint]:
            continue
        judged = images
        if identity["n"] < len(images):
            judged = balanced_subset(images, identity["n"], seed=0)
        labels = judged.labels.cpu()
        for saved in sorted(folder.glob("images/*.safetensors")):
            pictures, positions = read_images(saved)
            if not all(0 <= position < len(labels) for position in positions.tolist()):
                raise UserError(f"{saved} holds images that are none of the {len(labels)} of its evaluation.")
            yield pictures, labels[positions]


def first_saved_images(target: Target, most: int) -> tuple[Tensor, Tensor]:
    """At most so many of the saved images, and their labels; none where nothing was saved."""
    pictures, labels, count = [torch.zeros(0, *target.images.shape)], [torch.zeros(0, dtype=torch.int64)], 0
    for here, theirs in saved_images(target):
        pictures.append(here[: most - count])
        labels.append(theirs[: most - count])
        count += len(pictures[-1])
        if count >= most:
            break
    return torch.cat(pictures), torch.cat(labels)
