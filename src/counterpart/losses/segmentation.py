"""Per-image losses of part logits against annotated parts.

Each is 0 for an image without annotation, whatever its mask holds. So the mean over a batch counts every image alike:
it does not depend on who else is annotated, nor on how processes share a batch, and is the same in every objective.
"""

from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.nn import functional as F

from ..batch import Batch
from ..contracts import PartOutput
from ..part_maps import FLOOR, boxes, centroids, mean_shares, part_counts, strips


@runtime_checkable
class PartLoss(Protocol):
    """A function (output, batch, part_classes (P,), full_resolution) -> (B,), a loss of the part logits."""

    def __call__(
        self, output: PartOutput, batch: Batch, part_classes: Tensor, full_resolution: bool
    ) -> Tensor:
        """The loss of each image."""
        ...


def segmentation(
    output: PartOutput,
    batch: Batch,
    part_classes: Int[Tensor, " p"],
    full_resolution: bool,
    *,
    background_weight: float = 1.0,
) -> Float[Tensor, " b"]:
    """The ``part_cross_entropy`` of the model's part logits.

    Args:
        output: the model's answer to these images.
        batch: images with annotated parts.
        part_classes: has no effect on this loss.
        full_resolution: whether to enlarge the logits.
        background_weight: how much a pixel of the background counts beside one of a part.
    """
    parts, annotated = _annotation(batch)
    return part_cross_entropy(output.part_logits, parts, annotated, full_resolution, background_weight)


def part_cross_entropy(
    part_logits: Float[Tensor, "b c h w"],
    parts: Integer[Tensor, "b y x"],
    annotated: Bool[Tensor, " b"],
    full_resolution: bool,
    background_weight: float = 1.0,
) -> Float[Tensor, " b"]:
    """The cross-entropy of each pixel's part or background, averaged over the pixels of the image.

    With weights w of pixels, which are 1 on parts and ``background_weight`` elsewhere, it is the weighted mean
    sum(w ce) / sum(w) over the pixels of each image. So a small weight does not shrink the loss of an image that is
    mostly background, as a division by the number of pixels would, and an image of nothing else keeps its loss.

    Sitawarin et al. 2023, equation 7, as its code has it: the paper divides by P + 1 once more, which is a factor of
    c_seg. At the segmenter's own resolution, each of its cells answers for the pixels within it. At the full one its
    logits are enlarged bilinearly, in strips. Neither makes maps of full size.

    Args:
        part_logits: channel 0 is the background's.
        parts: true part ids.
        annotated: whether they are known.
        full_resolution: whether to enlarge the logits.
        background_weight: the weight of a pixel of the background, above 0. 1: as in the paper.
    """
    size, logits = (parts.shape[1], parts.shape[2]), part_logits.float()
    weights = logits.new_ones(logits.shape[1])
    weights[0] = background_weight

    def wrong(strip: Tensor, rows: slice) -> tuple[Tensor]:
        return (F.cross_entropy(strip, parts[:, rows].long(), weights, reduction="none").sum(dim=(1, 2)),)

    if full_resolution:
        total = torch.stack([piece for (piece,) in strips(logits, size, wrong)]).sum(dim=0)
    else:
        counts = part_counts(parts, logits.shape[1] - 1, (logits.shape[2], logits.shape[3]))
        total = -(weights.view(-1, 1, 1) * counts * logits.log_softmax(dim=1)).sum(dim=(1, 2, 3))
    return torch.where(annotated, total / _mass(parts, background_weight), 0.0)


def _mass(parts: Integer[Tensor, "b y x"], background_weight: float) -> float | Float[Tensor, " b"]:
    """The sum of the pixels' weights in each image."""
    pixels = parts.shape[1] * parts.shape[2]
    if background_weight == 1:
        return pixels  # a plain number: on CUDA, division by a tensor rounds otherwise
    background = (parts == 0).sum(dim=(1, 2))
    return (pixels - background) + background_weight * background


def centroid(
    output: PartOutput,
    batch: Batch,
    part_classes: Int[Tensor, " p"],
    full_resolution: bool,
    *,
    published: bool = False,
) -> Float[Tensor, " b"]:
    """The squared distances of the parts' centres from the annotated ones, plus a cross-entropy of classes' masses.

    Sitawarin et al. 2023, equations 12 and 13. A part that an image does not have counts as 0 in the mean over all P
    parts. The mass of a class is the sum of its parts' shares (softmax) over all pixels; its share of all classes' mass
    is the logit.

    Args:
        output: the model's answer to these images.
        batch: images with annotated parts.
        part_classes: the class of each part.
        full_resolution: whether to enlarge the logits.
        published: follow the published code. Distances are averaged over the parts that are there in this batch, so
            that an image's loss depends on the others. A mass is the mean over pixels, background included. Differs
            from that code in that x is compared with x and y with y (there one side is transposed).
    """
    parts, annotated = _annotation(batch)
    logits = output.part_logits.float()
    size = parts.shape[1:] if full_resolution else logits.shape[2:]
    predicted = boxes(logits, (size[0], size[1]))[:, :, 1:3]
    true = centroids(parts, len(part_classes))
    present = ~true.isnan().any(dim=2) & annotated[:, None]
    squares = torch.where(present, (predicted - true.nan_to_num()).square().sum(dim=2), 0.0).sum(dim=1)
    apart = squares * (len(parts) / present.sum().clamp(min=1)) if published else squares / len(part_classes)

    shares = mean_shares(logits, (size[0], size[1]))[:, 1:]
    masses = torch.zeros_like(output.logits, dtype=shares.dtype).index_add(1, part_classes, shares)
    scores = masses if published else masses / masses.sum(dim=1, keepdim=True).clamp(min=FLOOR)
    return torch.where(annotated, apart + F.cross_entropy(scores, batch.labels, reduction="none"), 0.0)


PART_LOSSES: dict[str, PartLoss] = {
    "segmentation": segmentation,
    "centroids": centroid,
    "centroids-published": partial(centroid, published=True),
}


def _annotation(batch: Batch) -> tuple[Tensor, Tensor]:
    """The part ids (B, H, W) of a batch, and whether each image is annotated (B,)."""
    if batch.parts is None:
        raise ValueError("a loss of parts needs a batch with annotated parts.")
    there = batch.has_parts
    return batch.parts, there if there is not None else torch.ones_like(batch.labels, dtype=torch.bool)
