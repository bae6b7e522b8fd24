"""Training without an attack."""

from torch import nn
from torch.nn import functional as F

from ..batch import Batch
from ..protocols import Loss, Objective, Perturbed, View
from ..seeding import Keys


def standard() -> Objective:
    """Cross-entropy on clean images."""
    return Objective(perturb=_leave, loss=cross_entropy_loss)


def _leave(view: View, batch: Batch, keys: Keys) -> Perturbed:
    return Perturbed(images=batch.images)


def cross_entropy_loss(model: nn.Module, batch: Batch, perturbed: Perturbed) -> Loss:
    """Mean cross-entropy on what the attack left; ``accuracy`` is measured on the same pass."""
    logits = model(perturbed.images)
    total = F.cross_entropy(logits.float(), batch.labels)
    return Loss(total, {"accuracy": (logits.argmax(dim=1) == batch.labels).float().mean()})
