"""How far two explanations of the same images agree, and how much of an answer hangs on what a map calls important."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

STEPS = 10  # the number of equal shares of the pixels that a curve takes away or brings back


def mask_overlap(first: Bool[Tensor, "b c h w"], second: Bool[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """The intersection of two masks of each image over their union (B,), in [0, 1]; 1 where both are empty."""
    both = (first & second).flatten(1).sum(dim=1)
    either = (first | second).flatten(1).sum(dim=1)
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def rank_correlation(first: Float[Tensor, "b u v"], second: Float[Tensor, "b u v"]) -> Float[Tensor, " b"]:
    """Spearman's correlation of two maps of each image (B,), with mean ranks of ties; NaN where a map is flat."""
    from scipy.stats import rankdata  # takes long to import

    ranks = [
        torch.from_numpy(rankdata(maps.flatten(1).cpu().double().numpy(), axis=1)) for maps in (first, second)
    ]
    centred = [each - each.mean(dim=1, keepdim=True) for each in ranks]
    lengths = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    products = (centred[0] * centred[1]).sum(dim=1)
    return torch.where(lengths > 0, products / lengths, torch.nan).float()


@torch.no_grad()
def deletion_and_insertion(
    ask: Callable[[Tensor], Tensor],
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    maps: Float[Tensor, "b h w"],
    steps: int = STEPS,
) -> tuple[Float[Tensor, "b s"], Float[Tensor, "b s"]]:
    """The probability of a class while pixels vanish, or come back, in the order of a map, the most important first.

    A map that is right makes the first curve fall early and the second rise early. Petsiuk et al. 2018 (RISE,
    arXiv 1806.07421), section 4. Differs from the paper in that what is taken away becomes the mean colour of its own
    image, in both curves; there it becomes grey in one and blurred in the other.

    Args:
        ask: images (B, C, H, W) to logits (B, K).
        images: in [0, 1].
        labels: the class of each image whose probability is followed.
        maps: at the images' resolution.
        steps: S - 1.

    Returns:
        Deletion and insertion, each with S points: from none of the pixels to all.
    """
    count = maps[0].numel()
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(count, device=order.device).expand_as(order))
    blank = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    deletion: list[Tensor] = []
    insertion: list[Tensor] = []
    for step in range(steps + 1):
        touched = (rank < count * step // steps).view(len(images), 1, *maps.shape[1:])
        for curve, inside, outside in ((deletion, blank, images), (insertion, images, blank)):
            answers = ask(torch.where(touched, inside, outside)).softmax(dim=1)
            curve.append(answers.gather(1, labels[:, None])[:, 0])
    return torch.stack(deletion, dim=1), torch.stack(insertion, dim=1)


def area(curve: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
    """The area under a curve over [0, 1] (B,), by trapezoids."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)
