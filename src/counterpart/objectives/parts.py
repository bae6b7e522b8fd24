"""Objectives of part models: any objective, plus a loss of the parts, of which it knows nothing."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..batch import Batch
from ..contracts import Loss, LossFunction, Objective, PartModel, PartOutput, Perturbed
from ..losses.segmentation import PartLoss, segmentation


def with_parts(
    objective: Objective, *, c_seg: float, part_loss: PartLoss = segmentation, label_smoothing: float = 0.0
) -> Objective:
    """Add a loss of parts to an objective: ``1 - c_seg`` times its loss of classes, ``c_seg`` times that of parts.

    Sitawarin et al. 2023, equations 5, 8 and 10. The loss of parts is that of the images that the objective passed
    last: clean ones in clean training, attacked ones otherwise (TRADES has its loss of classes on the clean ones). The
    attack is the objective's own, and knows classes alone. An image without annotated parts has no loss of parts, in
    any objective; its other terms are those of all images.

    Differs from the published code, which averages the loss of parts over all images in some objectives, and over the
    annotated ones in TRADES.

    Args:
        objective: ``standard``, ``adversarial`` or ``trades``, whose loss of classes is the cross-entropy on the images
            that they pass first.
        c_seg: from 0, which is the objective itself, to 1, which leaves no loss of classes.
        part_loss: a function of ``losses.segmentation``.
        label_smoothing: the label smoothing of the objective's cross-entropy.
    """
    if c_seg == 0:
        return objective
    loss = partial(
        parts_loss, base=objective.loss, c_seg=c_seg, part_loss=part_loss, label_smoothing=label_smoothing
    )
    return Objective(perturb=objective.perturb, loss=loss)


def parts_loss(
    model: nn.Module,
    batch: Batch,
    perturbed: Perturbed,
    *,
    base: LossFunction,
    c_seg: float,
    part_loss: PartLoss,
    label_smoothing: float,
) -> Loss:
    """The mean over the batch. ``part_loss`` is the loss of parts, which is 0 for images without annotation.

    Of a model that predicts parts at several resolutions it is averaged over them.
    """
    assert isinstance(model, PartModel)
    watched = _Watched(model)
    loss = base(watched, batch, perturbed)
    first, last, size = watched.outputs[0], watched.outputs[-1], len(batch)
    attacked = last.last(size)  # the second half of a joint pass on clean and attacked images
    classes = F.cross_entropy(first.logits[:size].float(), batch.labels, label_smoothing=label_smoothing)
    parts = torch.stack(
        [
            part_loss(answer, batch, model.part_classes, model.full_resolution).mean()
            for answer in attacked.resolutions
        ]
    ).mean()
    return Loss(loss.total + c_seg * (parts - classes), {**loss.terms, "part_loss": parts.detach()})


class _Watched(nn.Module):
    """A part model as a classifier that records all its answers."""

    def __init__(self, model: PartModel) -> None:
        super().__init__()
        self.answer = model.forward_parts
        self.outputs: list[PartOutput] = []

    def forward(self, images: Tensor) -> Tensor:
        self.outputs.append(self.answer(images))
        return self.outputs[-1].logits
