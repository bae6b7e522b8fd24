"""Traces of PGD: what the audit's attack met on every step of its way, on each image."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..attacks.projected_gradient import climb
from ..batch import Batch
from ..budget import Budget
from ..contracts import Classifier
from ..losses.classification import cross_entropy
from ..seeding import Keys
from .answers import as_judged, predictions

FULL_WAY = 2.5  # all steps together are that many radii long, as in ``attacks.pgd``


@dataclass(frozen=True)
class Trace:
    """The ways of B images through S steps, from the start to the last iterate.

    Attributes:
        losses: (S + 1, B) the cross-entropy that the attack raises, in nats.
        lengths: (S, B) the Euclidean length of its gradient at each iterate that a step was taken from.
        claims: (S + 1, B) whether the view, on which the attack searches, misclassifies the iterate.
        fooled: (S + 1, B) whether the original model in float32 does.
        has_graph: whether the answers have a graph that leads to the images.
        forwards: the forward passes of an image, those of the original model included.
        backwards: the backward passes of an image.
    """

    losses: Float[Tensor, "s b"]
    lengths: Float[Tensor, "t b"]
    claims: Bool[Tensor, "s b"]
    fooled: Bool[Tensor, "s b"]
    has_graph: bool
    forwards: int
    backwards: int

    @property
    def returned(self) -> Int[Tensor, " b"]:
        """(B,) the step whose iterate the attack returns: the first that claims success, or the last."""
        first = self.claims.int().argmax(dim=0)
        return torch.where(self.claims.any(dim=0), first, len(self.claims) - 1)

    @property
    def stands(self) -> Bool[Tensor, " b"]:
        """(B,) whether the original model is right on what the attack returns: the attack failed."""
        return ~self.fooled.gather(0, self.returned[None])[0]


def reachable(logits: Float[Tensor, "b k"], images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
    """The logits with a graph to the images, whose gradient is 0 where they had none."""
    return logits + 0 * images.flatten(1).sum(dim=1, keepdim=True)


def has_graph(view: Classifier, images: Float[Tensor, "b c h w"]) -> bool:
    """Whether the answers of a view have a graph that leads to the images."""
    leaf = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = view(leaf)
        if not logits.requires_grad:
            return False
        (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    return gradient is not None


def trace_pgd(
    model: nn.Module, view: Classifier, batch: Batch, budget: Budget, keys: Keys, *, steps: int
) -> Trace:
    """Run PGD on images as the audit does, to the last step even where it has won, and keep its ways.

    Args:
        model: the original model, which judges every iterate in float32.
        view: the copy of it that the attack searches on.
        batch: images that the model classifies correctly.
        budget: the budget of the whole batch.
        keys: the source of the random start.
        steps: the number of gradient steps.
    """
    losses, claims, fooled, lengths = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()

    def keep(gradient: Tensor) -> None:
        lengths.append(gradient.flatten(1).norm(dim=1))

    def answer(current: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        leaf = current.detach().requires_grad_()
        leaf.register_hook(keep)  # type: ignore[no-untyped-call]  # torch declares no types for it
        logits = reachable(view(leaf), leaf)
        loss = cross_entropy(logits, batch.labels[rows])
        losses.append(loss.detach())
        claims.append(logits.argmax(dim=1) != batch.labels[rows])
        fooled.append(predictions(model, current) != batch.labels[rows])
        return leaf, logits, loss

    length = budget.size(batch.images) * (FULL_WAY / steps)
    begin, rows = budget.sample(batch.images, keys), torch.arange(len(batch), device=batch.images.device)
    with as_judged(model, batch.images.device):
        climb(
            answer, batch.images, batch.labels, begin, rows,
            budget=budget, length=length, steps=steps, to_the_end=True,
        )  # fmt: skip
    return Trace(
        torch.stack(losses), torch.stack(lengths), torch.stack(claims), torch.stack(fooled),
        has_graph(view, batch.images[:1]), forwards=2 * (steps + 1), backwards=steps,
    )  # fmt: skip


def joined(traces: list[Trace]) -> Trace:
    """The trace of all images of several batches."""
    first = traces[0]
    columns = {
        name: torch.cat([getattr(trace, name) for trace in traces], dim=1)
        for name in ("losses", "lengths", "claims", "fooled")
    }
    return Trace(**columns, has_graph=first.has_graph, forwards=first.forwards, backwards=first.backwards)
