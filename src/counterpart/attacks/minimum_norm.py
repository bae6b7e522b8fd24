"""The base of attacks that look for the nearest adversarial image: how far an image is, and the nearest one met.

A ``share`` (B, C, H, W) is each pixel's radius as a part of the largest radius in its image: 1 everywhere for a uniform
budget, 0 where a pixel is frozen. An ``offset`` (B, C, H, W) is the perturbation divided by the share, and a slope is
the gradient times the share. So an attack that thinks in offsets honours every budget: its ``length``, the norm of the
offset, is the plain norm of the perturbation for a uniform radius and for frozen pixels, and reaches the largest radius
exactly at the border of any budget.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, Probe
from ..losses.classification import margin
from .starts import images_of, leaf_and_logits

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}


@dataclass(frozen=True)
class Met:
    """The nearest adversarial image met for each image of a batch, and the passes that it cost. It is filled in place.

    Attributes:
        nearest: (B, C, H, W); the clean image where none was met.
        distances: (B,) their length; infinite where none was met.
        forwards: (B,) passes.
        backwards: (B,) passes.
    """

    nearest: Float[Tensor, "b c h w"]
    distances: Float[Tensor, " b"]
    forwards: Int[Tensor, " b"]
    backwards: Int[Tensor, " b"]

    def offer(self, index: Tensor, images: Tensor, lengths: Tensor, wrong: Tensor) -> None:
        """Take images (R, C, H, W) of the rows ``index`` that are ``wrong`` (R,) and nearer than those before."""
        nearer = wrong & (lengths < self.distances[index])
        self.distances[index] = torch.where(nearer, lengths, self.distances[index])
        self.nearest[index] = torch.where(nearer.view(-1, 1, 1, 1), images, self.nearest[index])

    def attacked(self, images: Tensor, budget: Budget) -> Attacked:
        """What the attack returns: the nearest image where the budget allows it, else the clean one."""
        allowed = self.distances.isfinite() & budget.contains(self.nearest, images)
        inside = torch.where(allowed.view(-1, 1, 1, 1), self.nearest, images)
        return Attacked(inside, self.forwards, self.backwards, self.distances, self.nearest)


def nothing_met(images: Float[Tensor, "b c h w"], forwards: int = 0) -> Met:
    """The state before the first step of a search, which has cost so many passes."""
    counts = torch.full((len(images),), forwards, dtype=torch.int64, device=images.device)
    distances = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)
    return Met(images.clone(), distances, counts, torch.zeros_like(counts))


@dataclass(frozen=True)
class Search:
    """The images that are still searched.

    Attributes:
        model: maps images to logits.
        index: (R,) their position in the batch.
        clean: (R, C, H, W).
        labels: (R,) true classes.
        share: (R, C, H, W).
        norm: the norm of the budget.
        met: what was met, for the whole batch.
    """

    model: Classifier
    index: Int[Tensor, " r"]
    clean: Float[Tensor, "r c h w"]
    labels: Int[Tensor, " r"]
    share: Float[Tensor, "r c h w"]
    norm: str
    met: Met

    def select(self, keep: Tensor) -> "Search":
        """The rows where ``keep`` (R,) is true."""
        rows = keep.nonzero()[:, 0]
        if len(rows) == len(keep):
            return self
        index, clean, labels, share = (t[rows] for t in (self.index, self.clean, self.labels, self.share))
        return replace(self, index=index, clean=clean, labels=labels, share=share)

    def pixels(self, offset: Tensor) -> Tensor:
        """The images (R, C, H, W) at some offsets, clipped to [0, 1]."""
        return (self.clean + offset * self.share).clamp(0, 1)

    def offset(self, images: Tensor) -> Tensor:
        """The offsets (R, C, H, W) of images: what moved, divided by the share, or 0 where the share is 0."""
        return offset_of(images, self.clean, self.share)

    def length(self, offset: Tensor) -> Tensor:
        """The norm (R,) of offsets."""
        return norm_of(offset.flatten(1), self.norm)

    def farthest(self) -> Tensor:
        """The length (R,) of the longest offset within [0, 1]."""
        corner = (self.clean < 0.5).to(self.clean)
        return self.length(self.offset(corner))

    def begin(self, start: Tensor | Probe | None) -> Tensor:
        """The first images: the clean ones, or those given, whose frozen pixels keep their clean value."""
        if start is None:
            return self.clean
        return self.pixels(self.offset(images_of(start)[self.index]))

    def ask(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images as a leaf, their logits (R, K) with graph, and which (R,) fool the model. Remembers the nearest."""
        leaf, logits = leaf_and_logits(self.model, images)
        return leaf, logits, self.meet(images, logits)

    def judge(self, images: Tensor) -> None:
        """Remember the nearest of some last images."""
        if len(images):
            with torch.no_grad():
                self.meet(images, self.model(images))

    def meet(self, images: Tensor, logits: Tensor, confidence: float = 0.0) -> Tensor:
        """Remember the nearest of images with these logits; which (R,) are wrong by more than ``confidence``."""
        self.met.forwards[self.index] += 1
        true = torch.zeros_like(logits).scatter(1, self.labels[:, None], confidence)
        wrong = (logits.detach() + true).argmax(dim=1) != self.labels
        self.met.offer(self.index, images, self.length(self.offset(images)), wrong)
        return wrong

    def slope(self, value: Tensor, leaf: Tensor) -> Tensor:
        """The gradient (R, C, H, W) of ``value`` (R,) by offsets."""
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        self.met.backwards[self.index] += 1
        return gradient * self.share


def search_of(
    name: str,
    norms: tuple[str, ...],
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
) -> tuple[Search, Tensor]:
    """A search for the images that the model gets right, and their logits (R, K); the others are at distance 0.

    Args:
        name: the name of the attack, for an error.
        norms: the norms that it has.
        model: maps images to logits; asked once about every clean image.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        budget: says which pixels move, and how far in relation to each other.

    Raises:
        ValueError: the budget has another norm, the model one class, or images or labels are none.
    """
    if budget.norm not in norms:
        raise ValueError(f"{name} has no {budget.norm} budget: it has {', '.join(norms)}.")
    check_unit_range(images)
    with torch.no_grad():
        logits = model(images)
    check_labels(labels, logits.shape[1])
    if logits.shape[1] < 2:
        raise ValueError(f"{name} needs a model of 2 classes or more, got {logits.shape[1]}.")
    met, wrong = nothing_met(images, forwards=1), logits.argmax(dim=1) != labels
    met.distances[wrong] = 0
    everything = torch.arange(len(images), device=images.device)
    whole = Search(model, everything, images, labels, share_of(budget, images), budget.norm, met)
    return whole.select(~wrong), logits[~wrong]


def share_of(budget: Budget, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each pixel's radius as a part of the largest radius in its image; 0 where the part is too small for its type."""
    radius = budget.radius(images).expand_as(images)
    largest = budget.size(images).view(-1, 1, 1, 1)
    share = torch.where(largest > 0, radius / largest, 0)
    return torch.where(share >= torch.finfo(share.dtype).tiny, share, 0)


def offset_of(images: Tensor, clean: Tensor, share: Tensor) -> Tensor:
    """The offset: what moved, divided by the share, or 0 where the share is 0."""
    return torch.where(share > 0, (images - clean) / share, 0)


def nearest_plane(
    leaf: Tensor, logits: Tensor, labels: Tensor, rivals: list[Tensor], scale: Tensor, norm: str
) -> tuple[Tensor, Tensor]:
    """Find the nearest linearised boundary: its value (B,), rival less true logit, and its slope (B, D).

    Args:
        leaf: (B, C, H, W) images.
        logits: (B, K) their logits, attached.
        labels: (B,) true classes.
        rivals: classes (B,) each; every one costs a backward pass.
        scale: (B, D) of what a pixel moves, which its gradient is multiplied by.
        norm: that distances are measured in.
    """
    chosen: tuple[Tensor, Tensor, Tensor] | None = None
    for number, rival in enumerate(rivals, start=1):
        gap = margin(logits, labels, rival)
        (gradient,) = torch.autograd.grad(gap.sum(), leaf, retain_graph=number < len(rivals))
        gap, slope = gap.detach(), gradient.flatten(1) * scale
        distance = gap.abs() / norm_of(slope, DUAL[norm]).clamp_min(torch.finfo(slope.dtype).tiny)
        if chosen is None:
            chosen = distance, gap, slope
        else:
            nearer = distance < chosen[0]
            chosen = (
                torch.where(nearer, distance, chosen[0]),
                torch.where(nearer, gap, chosen[1]),
                torch.where(nearer[:, None], slope, chosen[2]),
            )
    assert chosen is not None
    return chosen[1], chosen[2]


def norm_of(vectors: Tensor, norm: str) -> Tensor:
    """The norm along the last axis.

    Plain reductions are several times faster than ``vector_norm`` for l-infinity and l1.
    """
    if norm == "linf":
        return vectors.abs().amax(dim=-1)
    if norm == "l1":
        return vectors.abs().sum(dim=-1)
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def unit(slope: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Scale slopes to Euclidean length 1; those of length 0 stay."""
    length = norm_of(slope.flatten(1), "l2").clamp_min(torch.finfo(slope.dtype).tiny)
    return slope / length.view(-1, 1, 1, 1)
