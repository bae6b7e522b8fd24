"""Objectives of part models: any objective, and a loss of the parts that it did not see."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from ..batch import Batch
from ..losses.segmentation import PartLoss, segmentation
from ..protocols import Loss, LossFunction, Objective, PartModel, PartOutput, Perturbed


def with_parts(
    objective: Objective, *, c_seg: float, part_loss: PartLoss = segmentation, label_smoothing: float = 0.0
) -> Objective:
    """``(1 - c_seg)`` times the objective's loss of classes, and ``c_seg`` times a loss of parts.

    Sitawarin et al. 2023, equations 5, 8 and 10. The loss of parts is that of the images that the objective passed
    last: clean ones in clean training, attacked ones otherwise (TRADES has its loss of classes on the clean ones). The
    attack is the objective's own, and knows classes alone. An image without annotated parts has no loss of parts, in
    any objective; its other terms are those of all images.

    Differs from the published code, which averages the loss of parts over all images in some objectives, and over the
    annotated ones in TRADES.

    Args:
        objective: ``standard``, ``adversarial`` or ``trades``: one whose loss of classes is cross-entropy on the images
            that it passes first.
        c_seg: between 0, the objective itself, and 1, no loss of classes.
        part_loss: one of ``losses.segmentation``.
        label_smoothing: that of the objective's cross-entropy.
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
    """Mean over the batch; ``part_loss`` is that of the parts, 0 for images without annotation."""
    assert isinstance(model, PartModel)
    watched = _Watched(model)
    loss = base(watched, batch, perturbed)
    first, last, size = watched.outputs[0], watched.outputs[-1], len(batch)
    attacked = PartOutput(
        last.logits[-size:], last.part_logits[-size:]
    )  # of one pass on both halves, the second
    classes = F.cross_entropy(first.logits[:size].float(), batch.labels, label_smoothing=label_smoothing)
    parts = part_loss(attacked, batch, model.part_classes, model.full_resolution).mean()
    return Loss(loss.total + c_seg * (parts - classes), {**loss.terms, "part_loss": parts.detach()})


class _Watched(nn.Module):
    """A part model as a classifier that keeps all that it answered."""

    def __init__(self, model: PartModel) -> None:
        super().__init__()
        self.answer = model.forward_parts
        self.outputs: list[PartOutput] = []

    def forward(self, images: Tensor) -> Tensor:
        self.outputs.append(self.answer(images))
        return self.outputs[-1].logits
