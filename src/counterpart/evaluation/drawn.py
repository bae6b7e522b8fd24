"""Judging of models whose answers are random: how many of several draws are right, for each image.

An attacker chooses the worst attack for each image. Who chooses and judges on the same draws takes bad luck for
strength: the smallest of several shares is too small on average. So each attacked image is judged on two sets of draws.
The first chooses the attack, and the second, which is fresh, says how often the model is right under it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..models.random_passes import seeded_passes
from ..seeding import derive


@dataclass(frozen=True)
class DrawPlan:
    """How often a model is asked about each image.

    Attributes:
        draws: the number of answers to each image in each of the two sets.
        votes: the number of passes that vote on each answer.
        seed: the seed of the evaluation, from which all draws are derived.
    """

    draws: int
    votes: int
    seed: int


CLOSE = 1e-4  # share of the range of an image's logits that rounding may decide


@dataclass(frozen=True)
class DrawnCounts:
    """How often each of B images is classified correctly.

    Attributes:
        first: (B,) the right answers among the draws that choose an attack.
        fresh: (B,) the right answers among as many fresh draws, which judge it.
        answers: (B,) the class that is answered most often among the fresh draws.
        close: (B,) the number of passes in which rounding may decide the answer.
    """

    first: Int[Tensor, " b"]
    fresh: Int[Tensor, " b"]
    answers: Int[Tensor, " b"]
    close: Int[Tensor, " b"]


def count_right(
    model: nn.Module,
    ask: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    plan: DrawPlan,
    batch: str,
) -> DrawnCounts:
    """How often the answers to images are right, over two sets of draws.

    Args:
        model: the model, whose generators are seeded for each draw.
        ask: a function from images (B, C, H, W) to the model's logits (B, K).
        images: the images (B, C, H, W).
        labels: the true classes (B,).
        plan: how often the model is asked.
        batch: the name of the batch; other batches draw otherwise.
    """
    close, sets = torch.zeros_like(labels), {}
    for purpose in ("first", "fresh"):
        answers = []
        for draw in range(plan.draws):
            with seeded_passes(model, derive(plan.seed, f"{batch}/{purpose}", draw), images.device):
                passes = [ask(images) for _ in range(plan.votes)]
            answers.append(vote(torch.stack([logits.argmax(dim=1) for logits in passes])))
            close += torch.stack([_is_close(logits) for logits in passes]).sum(dim=0)
        sets[purpose] = torch.stack(answers)
    first, fresh = ((sets[purpose] == labels).sum(dim=0) for purpose in ("first", "fresh"))
    return DrawnCounts(first, fresh, vote(sets["fresh"]), close)


def vote(answers: Int[Tensor, "v b"]) -> Int[Tensor, " b"]:
    """The class with the most of V votes on each image; of several with as many, that of the lowest index."""
    classes = int(answers.max()) + 1
    counts = torch.nn.functional.one_hot(answers, classes).sum(dim=0)
    lowest_first = counts * classes - torch.arange(classes, device=answers.device)
    return lowest_first.argmax(dim=1)


def chosen_share(
    first: Mapping[str, int], fresh: Mapping[str, int], candidates: Iterable[str], draws: int
) -> float:
    """The share of an image's fresh draws that are right under the attack that the first draws choose.

    Args:
        first: a mapping from what the image met to its right answers among the draws that choose.
        fresh: the same for the fresh draws.
        candidates: what may be chosen, in order: of several with equally few right answers the earliest is. What the
            image did not meet is passed over.
        draws: the number of draws in each set.
    """
    met = [name for name in candidates if name in first]
    return fresh[min(met, key=lambda name: first[name])] / draws


def _is_close(logits: Tensor) -> Tensor:
    """Whether the two largest logits (B, K) differ by less than rounding may."""
    if logits.shape[1] < 2:
        return torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    largest = logits.topk(2, dim=1).values
    return largest[:, 0] - largest[:, 1] < CLOSE * (logits.amax(dim=1) - logits.amin(dim=1))
