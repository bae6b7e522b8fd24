"""Indicators of attack failure: what the trace of an attack that failed tells about why it failed.

Pintor et al. 2022 (arXiv 2106.09947). The first version of the paper defines silent success, the break-point angle,
increasing loss, zero gradients and non-transferability; its last version, unavailable gradients and incomplete
optimisation. The paper gives a threshold for those that are flags of an image, and none for the break-point angle and
the increasing loss: these two are measured and never alarm.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .attack_traces import Trace
from .masking_checks import Behaviour, beyond_luck

LAST = 10  # the last iterations over which an attack must have come to rest
AT_REST = 0.05  # the share of the loss's range that it may still gain in these: the authors' code


def behaviours_of(trace: Trace) -> list[Behaviour]:
    """The behaviours that honest gradients show on the way of an attack, but for its convergence."""
    return [_silent(trace), _climbs(trace), _gradients(trace), _transfer(trace)]


def restless_share(trace: Trace) -> float:
    """The share of the failed attacks that had not come to rest; 0 where none failed."""
    restless = unfinished(trace.losses[:, trace.stands])
    return float(restless.sum() / max(1, len(restless)))


def convergence(trace: Trace, longer: Trace | None, fallen: Bool[Tensor, " b"]) -> Behaviour:
    """Whether failed attacks had come to rest, or else whether longer ones find more.

    The paper flags single images and names no share of them. Its remedy is more steps (mitigation 2), so that is tried,
    and the alarm is for what it finds.

    Args:
        trace: the attack's trace.
        longer: the trace of the attack with more steps; None where no failed attack was restless.
        fallen: (B,) the images that any gradient attack of the audit felled.
    """
    name, failed = "longer attacks find nothing new", trace.losses[:, trace.stands]
    if failed.shape[1] == 0:
        return Behaviour(name, {}, True, "no attack failed")
    numbers = {
        "loss still rising": restless_share(trace),
        "break-point angle": float(break_point_angle(failed).mean()),
    }
    if longer is None:
        return Behaviour(name, numbers, True, "failed attacks had come to rest")
    new = float((~longer.stands & ~fallen).float().mean())
    steps = len(longer.lengths)
    honest = not beyond_luck(new, len(fallen))
    words = (
        f"some had not come to rest, and {steps} steps find nothing new"
        if honest
        else f"failed attacks had not come to rest: {steps} steps find more"
    )
    return Behaviour(name, {**numbers, "longer alone": new}, honest, words)


def normalised(losses: Float[Tensor, "s b"]) -> Float[Tensor, "s b"]:
    """What an attack minimises, the negative of the loss that it raises, moved and scaled into [0, 1].

    A way on which it never changes is 0.
    """
    falling = -losses.double()
    low, high = falling.amin(dim=0), falling.amax(dim=0)
    return ((falling - low) / (high - low).clamp_min(torch.finfo(torch.float64).tiny)).to(losses)


def break_point_angle(losses: Float[Tensor, "s b"]) -> Float[Tensor, " b"]:
    """The break-point angle of each way (B,), as abs(cos(beta)).

    Loss and iteration are scaled to [0, 1]. The first and the last point of the curve, and the point of it that lies
    farthest from the line through both, make a triangle, and beta is its angle at that point. Near 1 the triangle is
    flat: the loss was still falling when the attack ended, or never fell (version 1, indicator 2). Near 0 the angle is
    right: the loss fell and came to rest. Differs from the paper's text, which writes 1 - abs(cos(beta)) and says of it
    that it is near 0 at a right angle; its code and its table have abs(cos(beta)).
    """
    curve = normalised(losses)
    points = torch.stack([torch.linspace(0, 1, len(curve)).to(curve)[:, None].expand_as(curve), curve], dim=2)
    first, last = points[0], points[-1]
    along = last - first
    offset = points - first
    cross = (along[None, :, 0] * offset[..., 1] - along[None, :, 1] * offset[..., 0]).abs()
    farthest = cross.argmax(dim=0)
    corner = points.gather(0, farthest[None, :, None].expand(1, -1, 2))[0]
    cosine = torch.nn.functional.cosine_similarity(first - corner, last - corner, dim=1)
    straight = cross.amax(dim=0) <= 1e-9  # no triangle at all: as flat as can be
    return torch.where(straight, 1.0, cosine.abs())


def increasing_loss(losses: Float[Tensor, "s b"]) -> Float[Tensor, " b"]:
    """The increasing loss of each way (B,): how high the minimised loss is where it rises.

    The paper (version 1, indicator 3) takes the portions of the normalised curve that rise, and the area below them. As
    in its code, the portions are put together and stretched to a width of 1, so that the area is the mean height of the
    rising portions: near 1 the loss fluctuates around its maximum, and 0 says that it never rises.
    """
    curve = normalised(losses)
    before, after = curve[:-1], curve[1:]
    rises = after > before
    heights = torch.where(rises, (before + after) / 2, 0.0).sum(dim=0)
    return heights / rises.sum(dim=0).clamp_min(1)


def zero_gradients(lengths: Float[Tensor, "t b"]) -> Float[Tensor, " b"]:
    """The share of the iterates of each way (B,) at which the gradient is exactly 0 (version 1, indicator 4).

    Differs from the paper in that the last iterate, from which no step is taken, does not count.
    """
    return (lengths == 0).to(lengths).mean(dim=0)


def unfinished(losses: Float[Tensor, "s b"]) -> Tensor:
    """Whether each attack (B,) had not come to rest: incomplete optimisation, of the paper's last version.

    The best value so far of the normalised loss still fell by more than ``AT_REST`` within the ``LAST`` iterations.
    """
    best = normalised(losses).cummin(dim=0).values
    return best[-min(LAST, len(best)) :][0] - best[-1] > AT_REST


def _silent(trace: Trace) -> Behaviour:
    silent = trace.stands & trace.fooled.any(dim=0)
    share = float(silent.float().mean())
    honest = share == 0
    words = (
        "no attack passes over what fools the model"
        if honest
        else "attacks that failed had met images that fool the model"
    )
    return Behaviour("no silent success", {"silent successes": share}, honest, words)


def _climbs(trace: Trace) -> Behaviour:
    failed = trace.losses[:, trace.stands]
    name = "the loss does not fall back"
    if failed.shape[1] == 0:
        return Behaviour(name, {}, True, "no attack failed")
    height = float(increasing_loss(failed).mean())
    return Behaviour(
        name,
        {"increasing loss": height},
        True,
        "a measurement: the paper names no threshold; near 100 % steps are lost",
    )


def _gradients(trace: Trace) -> Behaviour:
    name = "gradients are there and not zero"
    if not trace.has_graph:
        return Behaviour(
            name, {"zero gradients": 1.0}, False, "answers have no gradient: attacks cannot climb"
        )
    share = zero_gradients(trace.lengths)[trace.stands]
    if len(share) == 0:
        return Behaviour(name, {}, True, "no attack failed")
    numbers = {"zero gradients": float(share.mean()), "images with some": float((share > 0).float().mean())}
    honest = numbers["images with some"] == 0
    words = (
        "no failed attack met a gradient of 0" if honest else "failed attacks stood where the gradient is 0"
    )
    return Behaviour(name, numbers, honest, words)


def _transfer(trace: Trace) -> Behaviour:
    claimed = trace.claims.gather(0, trace.returned[None])[0]
    lost = float((claimed & trace.stands).sum() / claimed.sum().clamp_min(1))
    honest = not beyond_luck(lost, int(claimed.sum()))
    words = (
        "what fools the copy that attacks search on fools the model"
        if honest
        else "what fools the copy that attacks search on does not fool the model"
    )
    return Behaviour("attacks carry over to the model", {"successes that do not": lost}, honest, words)
