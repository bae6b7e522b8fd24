"""What I add: an attack, and a rule that says where an attacker may go all the way."""

import torch
from torch.nn import functional as F

from counterpart.importance.masks import Mask


def momentum(model, images, labels, *, budget, keys, steps=10, decay=0.9):
    """Gradients that are added up, so that the way does not turn at every step."""
    attacked, velocity = images, torch.zeros_like(images)
    for _ in range(steps):
        leaf = attacked.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels), leaf)
        velocity = decay * velocity + gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
        attacked = budget.project(attacked + 0.03 * velocity.sign(), images)
    return attacked


def strokes(probe, batch, keys, share=0.5):
    """The full radius where the image itself changes most from pixel to pixel, and the smaller one elsewhere."""
    images = F.pad(batch.images, (1, 1, 1, 1), mode="replicate")
    across = (images[..., 1:-1, 2:] - images[..., 1:-1, :-2]).abs()
    down = (images[..., 2:, 1:-1] - images[..., :-2, 1:-1]).abs()
    change = (across + down).mean(dim=1, keepdim=True)
    threshold = change.flatten(1).quantile(1 - share, dim=1)[:, None, None, None]
    return Mask((change >= threshold).to(change.dtype), torch.zeros(len(change), dtype=torch.bool))


strokes.needs_map = False
