"""The published way, written down from its description: what the benchmarks compare with.

Zhang et al. 2024 train in eager float32 on contiguous tensors. Their burn-in attack takes gradients of the
images only; their PART attack calls ``backward`` and so computes and discards the gradients of all parameters
in each of ten steps. TRADES and MART, and PART-T and PART-M, take gradients of the images only; TRADES computes
the clean probabilities anew in each step, graph and all, and trains on three passes: clean, attacked, clean.
Their masks are drawn one image at a time through hooks, a full backward pass, Pillow and a colour map.
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


def trades_step(model, optimizer, images, labels, radius, step_size, steps, beta):
    """One step of TRADES, or with ``radius`` (B, 3, H, W) of PART-T."""

    def divergence(perturbed):
        log_probabilities = F.log_softmax(model(perturbed), dim=1)
        return F.kl_div(log_probabilities, F.softmax(model(images), dim=1), reduction="sum")

    def loss(perturbed):
        return F.cross_entropy(model(images), labels) + beta / len(images) * divergence(perturbed)

    model.eval()
    return descend(model, optimizer, loss, noise_attack(images, divergence, radius, step_size, steps))


def mart_step(model, optimizer, images, labels, radius, step_size, steps, beta):
    """One step of MART, or with ``radius`` (B, 3, H, W) of PART-M."""

    def loss(perturbed):
        clean, logits = F.softmax(model(images), dim=1), model(perturbed)
        attacked, rows = F.softmax(logits, dim=1), torch.arange(len(labels), device=labels.device)
        first, second = attacked.argsort(dim=1, descending=True)[:, :2].T
        strongest = attacked[rows, torch.where(first == labels, second, first)]
        boosted = F.cross_entropy(logits, labels) - (1.0001 - strongest + 1e-12).log().mean()
        divergence = F.kl_div((attacked + 1e-12).log(), clean, reduction="none").sum(dim=1)
        return boosted + beta * (divergence * (1.0000001 - clean[rows, labels])).mean()

    def wrongness(perturbed):
        return F.cross_entropy(model(perturbed), labels)

    model.eval()
    return descend(model, optimizer, loss, noise_attack(images, wrongness, radius, step_size, steps))


def noise_attack(images, loss, radius, step_size, steps):
    """PGD from the images plus normal noise of 0.001; ``radius`` is a number or (B, 3, H, W)."""
    perturbed = images + 0.001 * torch.randn_like(images)
    for _ in range(steps):
        perturbed = perturbed.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(perturbed), perturbed)
        moved = perturbed.detach() + step_size * gradient.sign()
        perturbed = (images + (moved - images).clamp(-radius, radius)).clamp(0, 1)
    return perturbed.detach()


def update(model, optimizer, images, labels):
    """The training pass."""
    return descend(model, optimizer, lambda perturbed: F.cross_entropy(model(perturbed), labels), images)


def descend(model, optimizer, loss, images):
    """The training passes and a step of the optimiser."""
    model.train()
    optimizer.zero_grad()
    total = loss(images)
    total.backward()
    optimizer.step()
    return total.item()


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
