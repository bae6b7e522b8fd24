"""Spatter: drops of water or mud, whose rims the published definition finds with OpenCV's edge detector."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ...seeding import Keys
from .filters import FORGIVEN, gaussian, in_channels

WATER = (175 / 255, 238 / 255, 238 / 255)
MUD = (63 / 255, 42 / 255, 20 / 255)
WEAK, STRONG = 50, 150  # gradients of an edge
# Lengths of a step to a neighbour, a diagonal one, and one a knight's move away (Borgefors 1986), and the most that
# counts. In units of 2^-16 pixels, rounded, as OpenCV has them: what follows cuts off at whole pixels.
UNIT = 2**16
STEPS = {(0, 1): round(1.0 * UNIT), (1, 1): round(1.4 * UNIT), (1, 2): round(2.1969 * UNIT)}
FAR = 20 * UNIT


def spatter(
    images: Float[Tensor, "b c h w"], strength: tuple[float, float, float, float, float, str], keys: Keys
) -> Float[Tensor, "b c h w"]:
    """(mean, sd, sigma, threshold, amount, "water" or "mud"): blurred normal noise above a threshold is liquid.

    Mud covers; ``amount`` is the sigma of its rim. Water adds light by its depth and the distance from the rims of
    drops, at most ``amount``. Depth is kept in 8 bits as published: above 255 it starts again at 0, which it does in
    every sixth image of CIFAR's severity 3. Differs from the published code where there is no liquid at all: the
    image stays as it is, and does not become NaN.
    """
    mean, sd, sigma, threshold, amount, kind = strength
    liquid = gaussian(mean + sd * keys.normal(0, (1, *images.shape[-2:])), sigma)
    liquid = torch.where(liquid < threshold, 0.0, liquid)
    colour = torch.tensor(WATER if kind == "water" else MUD, device=images.device).view(1, 3, 1, 1)
    colour = in_channels(colour, images.shape[1])
    if kind == "mud":
        cover = gaussian((liquid > threshold).float(), amount)
        cover = torch.where(cover < 0.8, 0.0, cover)
        return images * (1 - cover) + colour * cover
    depth = (255 * liquid + FORGIVEN).floor() % 256
    light = depth * _from_rims(depth)
    most = light.amax(dim=(2, 3), keepdim=True)
    return images + torch.where(most > 0, amount * light / most, 0.0) * colour


def _from_rims(depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The distance from the nearest rim, blurred, equalised and embossed, from 0 to 255."""
    far = _sum_3(_distances(edges(depth))).double().div(9 * UNIT).floor().float()
    far = _equalised(far)
    emboss = torch.tensor([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]], device=depth.device)[None, None]
    far = F.conv2d(F.pad(far, (1, 1, 1, 1), mode="reflect"), emboss).round().clamp(0, 255)
    return (_sum_3(far) / 9).round()


def _sum_3(planes: Tensor) -> Tensor:
    """Sums over 3 x 3 pixels, which are exact for whole numbers below 2^24 / 9."""
    return F.avg_pool2d(F.pad(planes, (1, 1, 1, 1), mode="reflect"), 3, stride=1, divisor_override=1)


def edges(depth: Float[Tensor, "b 1 h w"]) -> Bool[Tensor, "b 1 h w"]:
    """The edges of 8-bit planes by Canny's method (1986), as OpenCV finds them.

    Sobel gradients of |dx| + |dy| are thinned. Those above 150 are edges, and so are those above 50 that are connected
    with one of these.
    """
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=depth.device)
    padded = F.pad(depth, (1, 1, 1, 1), mode="replicate")
    gradients = F.conv2d(padded, torch.stack([sobel, sobel.T])[:, None]).round()
    dx, dy = gradients[:, :1], gradients[:, 1:]
    size = dx.abs() + dy.abs()
    around = F.pad(size, (1, 1, 1, 1))
    height, width = depth.shape[-2:]

    def at(down: int, right: int) -> Tensor:
        return around[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    tangent = 13573 / 2**15  # the tangent of 22.5 degrees, as OpenCV rounds it
    across = dy.abs() < tangent * dx.abs()
    along = dy.abs() > (tangent + 2) * dx.abs()
    falling = dx.sign() * dy.sign() < 0  # of different signs, where OpenCV compares with the other diagonal
    thin = torch.where(
        across,
        (size > at(0, -1)) & (size >= at(0, 1)),
        torch.where(
            along,
            (size > at(-1, 0)) & (size >= at(1, 0)),
            torch.where(
                falling,
                (size > at(-1, 1)) & (size > at(1, -1)),
                (size > at(-1, -1)) & (size > at(1, 1)),
            ),
        ),
    )
    candidates = thin & (size > WEAK)
    linked = candidates & (size > STRONG)
    while True:
        grown = candidates & (F.max_pool2d(linked.float(), 3, stride=1, padding=1) > 0)
        if torch.equal(grown, linked):
            return linked
        linked = grown


def _distances(rims: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """The length of the shortest path to a rim that ``STEPS`` allow, at most ``FAR``, in whole numbers."""
    near = torch.where(rims, 0.0, float(FAR))
    height, width = near.shape[-2:]
    moves = {
        (sign * a, other * b): length
        for (short, long), length in STEPS.items()
        for a, b in ((short, long), (long, short))
        for sign in (1, -1)
        for other in (1, -1)
    }
    while True:
        before, around = near, F.pad(near, (2, 2, 2, 2), value=FAR)
        for (down, right), length in moves.items():
            there = around[..., 2 + down : 2 + down + height, 2 + right : 2 + right + width]
            near = torch.minimum(near, there + length)
        if torch.equal(near, before):
            return near


def _equalised(planes: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Spread the values of 8-bit planes evenly over 0 to 255; planes of one value stay as they are."""
    levels = planes.flatten(1).long()
    counts = torch.zeros(len(levels), 256, dtype=torch.int64, device=planes.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    total, lowest = levels.shape[1], levels.amin(dim=1, keepdim=True)
    of_lowest = counts.gather(1, lowest)
    below = counts.cumsum(1) - of_lowest
    table = (below.double() * 255 / (total - of_lowest).clamp(min=1)).round().clamp(0, 255)
    spread = torch.where(of_lowest == total, levels.double(), table.gather(1, levels))
    return spread.view(planes.shape).float()
