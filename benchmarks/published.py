"""The published way, written down from its description: what the benchmarks compare with.

Zhang et al. 2024 train in eager float32 on contiguous tensors. Their burn-in attack takes gradients of the
images only; their PART attack calls ``backward`` and so computes and discards the gradients of all parameters
in each of ten steps. Their masks are drawn one image at a time through hooks, a full backward pass, Pillow and
a colour map.
"""

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F


def at_step(model, optimizer, images, labels, eps, step_size, steps):
    """One step of adversarial training as in the published burn-in."""
    model.eval()
    perturbed = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        perturbed = perturbed.detach().requires_grad_()
        loss = F.cross_entropy(model(perturbed), labels)
        (gradient,) = torch.autograd.grad(loss, perturbed)
        moved = perturbed.detach() + step_size * gradient.sign()
        perturbed = (images + (moved - images).clamp(-eps, eps)).clamp(0, 1)
    return update(model, optimizer, perturbed, labels)


def part_step(model, optimizer, images, labels, radius, eps, step_size, steps):
    """One step of PART; ``radius`` (B, 3, H, W) comes from ``masks``."""
    model.eval()
    perturbed = images + torch.empty_like(images).uniform_(-eps, eps)
    for _ in range(steps):
        perturbed = perturbed.detach().requires_grad_()
        model.zero_grad()
        F.cross_entropy(model(perturbed), labels).backward()
        moved = perturbed.detach() + step_size * perturbed.grad.sign()
        delta = torch.min(torch.max(moved - images, -radius), radius)
        perturbed = (images + delta).clamp(0, 1)
    return update(model, optimizer, perturbed, labels)


def update(model, optimizer, images, labels):
    """The training pass."""
    model.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def masks(model, layer, images, eps, eps_low):
    """Radii (B, 3, H, W), one image at a time, as the released code draws them."""
    model.eval()
    seen = {}

    def keep(_module, _inputs, output):
        seen["features"] = output
        output.register_hook(lambda gradient: seen.update(gradient=gradient))

    handle = layer.register_forward_hook(keep)
    jet, radii = matplotlib.colormaps["jet"], []
    try:
        for image in images:
            logits = model(image[None])
            model.zero_grad()
            logits[0, logits.argmax()].backward()
            weights = seen["gradient"].mean(dim=(2, 3), keepdim=True)
            heat = (weights * seen["features"]).sum(dim=1)[0].relu()
            heat = (heat - heat.min()) / (heat.max() - heat.min())
            size = (image.shape[2], image.shape[1])
            resized = Image.fromarray(heat.detach().cpu().numpy(), mode="F").resize(size, Image.BICUBIC)
            colours = jet(np.asarray(resized) ** 2)[:, :, :3]
            with np.errstate(invalid="ignore"):  # a flat map divides zero by zero there
                scores = np.clip((colours - colours.mean()) / colours.std(), 1, None).astype(np.float32)
            scores = torch.from_numpy(scores).permute(2, 0, 1).to(image.device)
            radii.append(torch.where(scores > 1, eps, eps_low))
    finally:
        handle.remove()
    return torch.stack(radii)
