"""Training without an attack."""

from functools import partial

from torch import nn
from torch.nn import functional as F

from ..batch import Batch
from ..contracts import Loss, Objective, Perturbed, View
from ..seeding import Keys


def standard(*, label_smoothing: float = 0.0) -> Objective:
    """The objective of training on clean images: cross-entropy.

    Args:
        label_smoothing: the share of each label that is spread evenly over all classes.
    """
    return Objective(perturb=_leave, loss=partial(cross_entropy_loss, label_smoothing=label_smoothing))


def _leave(view: View, batch: Batch, keys: Keys) -> Perturbed:
    return Perturbed(images=batch.images)


def cross_entropy_loss(
    model: nn.Module, batch: Batch, perturbed: Perturbed, *, label_smoothing: float = 0.0
) -> Loss:
    """The mean cross-entropy on the images that the attack returned. ``accuracy`` is measured on the same pass.

    A share ``label_smoothing`` of each label is spread evenly over all K classes, the true one included: Szegedy et al.
    2016, arXiv 1512.00567, section 7. For adversarial training: Pang et al. 2021, arXiv 2010.00467, whose code spreads
    it over the K - 1 wrong classes, so that its s is s K / (K - 1) here. The attack spreads nothing, as there.
    """
    logits = model(perturbed.images)
    total = F.cross_entropy(logits.float(), batch.labels, label_smoothing=label_smoothing)
    return Loss(total, {"accuracy": (logits.argmax(dim=1) == batch.labels).float().mean()})
