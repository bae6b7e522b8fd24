"""Fast adaptive boundary attack (FAB): walk along the decision boundary to its point nearest to the image.

Croce and Hein 2020, arXiv 1907.02044. Each step replaces the boundary by a plane, goes to the nearest point of plane
and box, and leans towards the nearest one as seen from the clean image.

Everything happens in units of the radius: an ``offset`` (B, D) is the perturbation divided by each pixel's radius, so
the search has norm 1 at the edge of any budget, and a slope is the gradient times the radius. A pixel of radius 0
has no offset and no slope.

Differs from the paper and its published code in these ways. The radius may differ from pixel to pixel. An image
leaves the batch at its first adversarial point within the budget, where they go on to look for the nearest. The pass
that gives the gradient judges its images as well, which they ignore. Without a target, one backward pass per wrong
class is made instead of one per class.
"""

from dataclasses import dataclass, replace
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..devices import waits
from ..losses.classification import margin
from ..seeding import Keys
from .minimum_norm import Met, nearest_plane, norm_of, nothing_met
from .rows import split_rows
from .starts import aim, images_of, leaf_and_logits

FLOOR = 1e-8  # of the two distances that are weighed against each other, as in the published code


def fab(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    target: Tensor | int | None = None,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> Attacked:
    """Look for the nearest image that ``model`` misclassifies, until one lies within ``budget``.

    Args:
        model: maps images in [0, 1] to logits (B, K). In eval mode: see ``front_door``. What is found lies close to the
            decision boundary, so the answers of a model in low precision may not hold in full precision.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: the allowed perturbations, in any norm, possibly per pixel.
        keys: source of the random starts.
        start: begin the first restart here instead of at the clean image: images, or a probe of them. They may lie
            outside the budget; frozen pixels keep their clean value.
        target: (B,) classes whose boundary to walk along; or the rank, from 1, of the wrong class that the clean image
            is most like; None: at each step the class whose boundary is nearest, found by one backward pass for each
            wrong class. Any wrong answer counts as fooled.
        steps: each costs two forward passes and, with a target, one backward pass.
        restarts: the later ones begin at random points half a radius away; only images that are not yet fooled meet
            the next.
        alpha_max: the largest weight of the nearest point as seen from the clean image.
        eta: how far to go beyond the plane: 1.05 is 5 % further than the way to it.
        beta: a misclassified point is pulled back to this share of its offset.

    Returns:
        For each image the first adversarial one met in ``budget``, else the clean image; distances and nearest images
        of all that was met until then, which a clean image is not where ``start`` is given. Passes are counted per
        image.
    """
    check_unit_range(images)
    targets, spent = aim(model, images, labels, target, margin)
    verdicts = _Verdicts(
        images.clone(), torch.ones_like(labels, dtype=torch.bool), nothing_met(images, spent)
    )
    everything, unmoved = torch.arange(len(images), device=images.device), torch.zeros_like(images).flatten(1)
    batch = _Rows(everything, images, labels, targets, budget, unmoved)
    for restart in range(restarts):
        standing = split_rows(verdicts.standing)[0]
        rows = batch.select(standing)
        if restart > 0:
            rows = rows.at(_random_offset(rows, keys[standing].fold(restart)))
        elif start is not None:
            rows = rows.at(rows.offset_of(images_of(start)))
        for step in range(steps):
            if len(rows.index) == 0:
                break
            pixels = rows.pixels()
            leaf, logits = leaf_and_logits(model, pixels)
            if restart == step == 0:
                check_labels(labels, logits.shape[1])
            standing = split_rows(~verdicts.judge(rows, pixels, logits)[1])[0]
            if len(standing) == 0:
                break
            # The planes of all rows: a backward pass on some of them would need another forward pass.
            gap, slope = nearest_plane(
                leaf, logits, rows.labels, _rivals(rows, logits.shape[1]), rows.radius(), budget.norm
            )
            rows = rows.at(_advance(rows, gap, slope, alpha_max, eta)).select(standing)
            verdicts.met.backwards[rows.index] += 1 if targets is not None else logits.shape[1] - 1

            pixels = rows.pixels()
            # Most of these points are misclassified and pulled back, so the next step needs a pass of its own:
            # keeping the graph of this one for the others would cost more than it saves.
            with torch.no_grad():
                wrong, done = verdicts.judge(rows, pixels, model(pixels))
            rows = rows.at(rows.offset * torch.where(wrong, beta, 1.0)[:, None]).select(split_rows(~done)[0])
    met = verdicts.met
    return Attacked(verdicts.images, met.forwards, met.backwards, met.distances, met.nearest)


@dataclass(frozen=True)
class _Rows:
    """The images that are still attacked: their position in the batch, and how far each has moved."""

    index: Tensor
    clean: Tensor
    labels: Tensor
    targets: Tensor | None
    budget: Budget
    offset: Tensor

    @property
    def near(self) -> Tensor:
        """(B,) whether the offset lies within the budget."""
        return norm_of(self.offset, self.budget.norm) <= 1

    def select(self, places: Tensor) -> "_Rows":
        """The rows at some places, in rising order."""
        if len(places) == len(self.index):
            return self
        index, clean, labels, offset = (t[places] for t in (self.index, self.clean, self.labels, self.offset))
        targets = None if self.targets is None else self.targets[places]
        return _Rows(index, clean, labels, targets, self.budget.select(places), offset)

    def at(self, offset: Tensor) -> "_Rows":
        """The same rows elsewhere."""
        return replace(self, offset=offset)

    def radius(self) -> Tensor:
        """(B, D)."""
        return self.budget.radius(self.clean).expand_as(self.clean).flatten(1)

    def offset_of(self, images: Tensor) -> Tensor:
        """(B, D): what moved, in units of the radius; 0 where that is 0."""
        radius = self.budget.radius(self.clean)
        inverse = torch.where(radius >= torch.finfo(radius.dtype).tiny, 1 / radius, 0)
        return ((images - self.clean) * inverse).flatten(1)

    def length(self, images: Tensor) -> Tensor:
        """(B,): the norm of what moved, as ``Attacked.distances`` has it."""
        return norm_of(self.offset_of(images), self.budget.norm) * self.budget.size(self.clean)

    def box(self) -> tuple[Tensor, Tensor]:
        """The offsets at which pixels are 0 and 1."""
        return self.offset_of(torch.zeros_like(self.clean)), self.offset_of(torch.ones_like(self.clean))

    def pixels(self) -> Tensor:
        """(B, C, H, W) images; those of offsets within the budget pass ``budget.contains``."""
        images = self.clean + (self.offset * self.radius()).view_as(self.clean)
        images = images.clamp(0, 1)
        rounded = self.near & ~self.budget.contains(images, self.clean)  # by the last bit
        if waits(images):  # to project all images takes less than to learn whether any needs it
            return torch.where(rounded.view(-1, 1, 1, 1), self.budget.project(images, self.clean), images)
        if rounded.any():
            images[rounded] = self.budget.select(rounded).project(images[rounded], self.clean[rounded])
        return images


@dataclass(frozen=True)
class _Verdicts:
    """What a search has come to, for the whole batch.

    Attributes:
        images: (B, C, H, W) the first adversarial one met in the budget, else the clean image.
        standing: (B,) whether there is none so far.
        met: passes, distances and nearest images.
    """

    images: Tensor
    standing: Tensor
    met: Met

    def judge(self, rows: _Rows, pixels: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows are misclassified, and which of these are done for being allowed, too."""
        wrong = logits.detach().argmax(dim=1) != rows.labels
        done = wrong & rows.near
        # All rows are written, because a mask as an index waits for the device.
        self.images[rows.index] = torch.where(done.view(-1, 1, 1, 1), pixels, self.images[rows.index])
        self.standing[rows.index] = ~done
        self.met.forwards[rows.index] += 1
        self.met.offer(rows.index, pixels, rows.length(pixels), wrong)
        return wrong, done


def _random_offset(rows: _Rows, keys: Keys) -> Tensor:
    """Half a radius away in a random direction, clipped to the box."""
    shape = tuple(rows.clean.shape[1:])
    noise = 2 * keys.uniform(0, shape) - 1 if rows.budget.norm == "linf" else keys.normal(0, shape)
    direction = noise.to(rows.clean.dtype).flatten(1) * (rows.radius() > 0)
    length = norm_of(direction, rows.budget.norm).clamp_min(torch.finfo(direction.dtype).tiny)
    low, high = rows.box()
    return (0.5 * direction / length[:, None]).clamp(low, high)


def _rivals(rows: _Rows, classes: int) -> list[Tensor]:
    """The targets, or every wrong class."""
    if rows.targets is not None:
        return [rows.targets]
    return [(rows.labels + shift) % classes for shift in range(1, classes)]


def _advance(rows: _Rows, gap: Tensor, slope: Tensor, alpha_max: float, eta: float) -> Tensor:
    """One step (algorithm 1 of the paper): the mean of two points just beyond the plane, mostly the nearer one."""
    here, (low, high) = rows.offset, rows.box()
    points = torch.stack([here, torch.zeros_like(here)])
    values = torch.stack([gap, gap - (slope * here).sum(dim=1)])
    moves = moves_onto_plane(points, slope, values, low, high, rows.budget.norm)
    near, far = norm_of(moves, rows.budget.norm).clamp_min(FLOOR)
    share = (near / (near + far)).clamp_max(alpha_max)[:, None]
    mean: Tensor = (1 - share) * (here + eta * moves[0]) + share * eta * moves[1]
    return mean.clamp(low, high)


def moves_onto_plane(
    points: Float[Tensor, "n b d"],
    slope: Float[Tensor, "b d"],
    values: Float[Tensor, "n b"],
    low: Float[Tensor, "b d"],
    high: Float[Tensor, "b d"],
    norm: str,
) -> Float[Tensor, "n b d"]:
    """The shortest move of each point that makes a linear function zero, or as small as the box allows.

    Every coordinate moves against its slope, at most by the room that it has. For l-infinity and l2 it moves by
    ``min(t * pace, room)``, where the pace is 1 or its slope, and what all achieve together is concave and piecewise
    linear in the multiplier t. So Newton's method from t = 0 never overshoots, exhausts more coordinates in each
    turn and ends at the exact solution after a few of them. For l1 the steepest coordinates go first.

    Args:
        points: N sets of points in the box.
        slope: of the linear function, in each coordinate.
        values: of the function at the points.
        low: lower bounds of the box.
        high: upper bounds.
        norm: "linf", "l2" or "l1".
    """
    direction = -slope.sign() * values.sign()[..., None]
    room = torch.maximum(direction * (low - points), direction * (high - points))
    limits = torch.finfo(slope.dtype)
    steepest = slope.abs().amax(dim=-1).clamp_min(limits.tiny)
    steepness, needed = slope.abs() / steepest[:, None], values.abs() / steepest
    gain = steepness * room

    if norm == "l1":
        order = steepness.argsort(dim=-1, descending=True, stable=True).expand_as(room)
        in_order = gain.gather(-1, order)
        missing = needed[..., None] - (in_order.cumsum(dim=-1) - in_order)
        spent = torch.empty_like(gain).scatter_(-1, order, missing.clamp_min(0))
        return direction * torch.minimum(room, spent / steepness.clamp_min(limits.tiny))

    pace = steepness if norm == "l2" else torch.ones_like(steepness)
    rates = steepness * pace
    multiplier = torch.zeros_like(needed)
    turns_between_looks = 4 if waits(slope) else 1  # a turn beyond the solution changes nothing
    for turn in count(1):
        size = torch.minimum(multiplier[..., None] * pace, room)
        moving = (room - size).sign()  # 1 or, where the room is exhausted, 0
        missing = needed - ((1 - moving) * gain).sum(dim=-1)
        rate = (moving * rates).sum(dim=-1)
        following = torch.where(rate > 0, missing / rate, limits.max).clamp_max(limits.max)
        if turn % turns_between_looks == 0 and not (following > multiplier).any():
            break
        multiplier = torch.maximum(multiplier, following)
    return direction * size
