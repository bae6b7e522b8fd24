"""The binarisation test: does an attack find an adversarial image that is there by construction?

Zimmermann et al. 2022, "Increasing confidence in adversarial robustness evaluations", arXiv 2206.13991. Around each
image one point on the boundary of its budget is told from many points inside it, by a linear discriminator of the
model's features. Put in place of the model's last layer it makes a model with two classes, of which it is known that
an adversarial image exists. An attack that cannot find it cannot be trusted where it finds nothing.

Differs from the paper in that the discriminator is Fisher's, in closed form, and not a logistic regression. As there,
it counts only where it separates the points, and its threshold is moved until it lies close to the boundary point.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..attacks.projected_gradient import climb
from ..batch import Batch
from ..budget import Budget
from ..losses.classification import cross_entropy
from ..seeding import Keys
from .answers import as_judged
from .attack_traces import FULL_WAY, reachable
from .masking_checks import Behaviour

INNER = 0.95  # inner points lie within this share of the radius, as in the paper
CLOSENESS = 0.999  # the share of the way from the inner points to the boundary point where the threshold lies
PASSED = 0.95  # the share of planted images that an attack must find: the paper's threshold
RIDGE = 1.0  # added to the variances of the features, in units of their mean

FeaturesOf = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A function from images (B, C, H, W) to the features (B, A) that enter the last layer, and to the logits (B, K)."""


@dataclass(frozen=True)
class Planted:
    """The result of the binarisation test on B images.

    Attributes:
        exists: (B,) whether an adversarial image could be planted: the modified model is right on the image, and wrong
            on the boundary point.
        attacked: (B,) whether the attack fooled the modified model.
        drawn: (B,) whether random points of the budget did.
        layer: the words for what the discriminator reads.
        forwards: the forward passes of an image.
        backwards: the backward passes of an image.
    """

    exists: Bool[Tensor, " b"]
    attacked: Bool[Tensor, " b"]
    drawn: Bool[Tensor, " b"]
    layer: str
    forwards: int
    backwards: int


def plant(
    model: nn.Module, batch: Batch, budget: Budget, keys: Keys, *, steps: int, points: int, draws: int
) -> Planted:
    """Plant an adversarial image in the budget of each image, and let PGD and random points look for it.

    Args:
        model: the original model, which is searched on and judges in float32.
        batch: the images, in [0, 1].
        budget: the budget of the whole batch.
        keys: the source of all points.
        steps: the gradient steps of PGD.
        points: the number of points inside the budget around each image; the paper takes 999.
        draws: the number of random points that the baseline tries for each image.
    """
    with as_judged(model, batch.images.device), _features(model, batch.images) as (features, layer):
        inside, boundary, spread = _sampled(features, batch.images, budget, keys, points)
        weight, bias = discriminator(inside, boundary)
        scale = _scale(weight, bias, inside, boundary, spread)
        weight, bias = weight * scale[:, None], bias * scale

        def ask(images: Tensor, rows: Tensor) -> Tensor:
            score = (features(images)[0].flatten(1) * weight[rows]).sum(dim=1) + bias[rows]
            return torch.stack([-score / 2, score / 2], dim=1)

        everyone = torch.arange(len(batch), device=batch.images.device)
        point = _boundary(batch.images, budget, keys)
        with torch.no_grad():
            exists = (ask(batch.images, everyone).argmax(dim=1) == 0) & (
                ask(point, everyone).argmax(dim=1) == 1
            )
            drawn = torch.zeros_like(exists)
            for draw in range(draws):
                places = budget.sample(batch.images, keys.fold("draw", draw))
                drawn |= ask(places, everyone).argmax(dim=1) == 1
        attacked = _attack(ask, batch, budget, keys, steps)
    forwards = points + 3 + draws + steps + 1
    return Planted(exists, attacked & exists, drawn & exists, layer, forwards, steps)


def behaviour_of(planted: Planted) -> Behaviour:
    """Whether the attack found what it is known that there is, beside random points."""
    exists = planted.exists
    name, n = "attacks find what is planted", int(exists.sum())
    if n == 0:
        words = "no adversarial image could be planted: no point of the budget stands out"
        return Behaviour(name, {"planted": 0.0}, None, words)
    by_attack = int(planted.attacked.sum()) / n
    by_chance = int(planted.drawn.sum()) / n
    numbers = {"PGD": by_attack, "random search": by_chance, "planted": float(exists.float().mean())}
    honest = by_attack >= PASSED
    words = (
        f"PGD finds the adversarial images that were planted in the {planted.layer}"
        if honest
        else f"PGD misses adversarial images that are known to exist (in the {planted.layer})"
    )
    return Behaviour(name, numbers, honest, words)


def joined(parts: Sequence[Planted]) -> Planted:
    """The result of all images of several batches."""
    exists, attacked, drawn = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("exists", "attacked", "drawn")
    )
    return replace(parts[0], exists=exists, attacked=attacked, drawn=drawn)


def discriminator(
    inside: Float[Tensor, "p b a"], boundary: Float[Tensor, "b a"]
) -> tuple[Float[Tensor, "b a"], Float[Tensor, " b"]]:
    """The weights and the bias of a linear discriminator for each of B images, which is positive at its boundary point.

    Its direction is Fisher's. Its threshold lies close to the boundary point, at ``CLOSENESS`` of the way from the
    highest of the P inner points. Where an inner point is as high as the boundary point, weights are 0 and the bias is
    negative: nothing is planted.
    """
    weights, biases = [], []
    for points, point in zip(inside.double().unbind(1), boundary.double(), strict=True):
        centred = points - points.mean(dim=0)
        spread = centred.T @ centred / len(points)
        ridge = RIDGE * spread.diagonal().mean().clamp_min(torch.finfo(torch.float64).tiny)
        spread.diagonal().add_(ridge)
        weight = torch.linalg.solve(spread, point - points.mean(dim=0))
        highest, top = (points @ weight).max(), point @ weight
        if not bool(top > highest):
            weight, highest, top = torch.zeros_like(weight), torch.ones_like(top), torch.ones_like(top)
        weights.append(weight)
        biases.append(-(highest + CLOSENESS * (top - highest)))
    return torch.stack(weights).to(inside), torch.stack(biases).to(inside)


def _sampled(
    features: FeaturesOf, images: Tensor, budget: Budget, keys: Keys, points: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Features (P + 1, B, A) inside the budgets, those (B, A) of the boundary points, and the logits' range (B,)."""
    smaller = replace(budget, eps=budget.eps * INNER)
    inside = []
    low = torch.full_like(images[:, 0, 0, 0], torch.inf)
    high = -low
    with torch.no_grad():
        for place in range(points + 1):
            moved = images if place == 0 else smaller.sample(images, keys.fold("inner", place))
            values, logits = features(moved)
            inside.append(values.flatten(1))
            low, high = torch.minimum(low, logits.amin(dim=1)), torch.maximum(high, logits.amax(dim=1))
        boundary = features(_boundary(images, budget, keys))[0].flatten(1)
    return torch.stack(inside), boundary, high - low


def _boundary(images: Tensor, budget: Budget, keys: Keys) -> Tensor:
    """A random point on the boundary of each budget: of Linf a corner."""
    direction = keys.fold("boundary").normal(0, tuple(images.shape[1:])).to(images)
    return budget.project(budget.step(images, direction, budget.size(images)), images)


def _scale(weight: Tensor, bias: Tensor, inside: Tensor, boundary: Tensor, spread: Tensor) -> Tensor:
    """The factor (B,) that gives the two logits the range that the model's own logits have, as in the paper."""
    scores = torch.einsum("pba,ba->pb", inside, weight) + bias
    largest = torch.maximum(scores.abs().amax(dim=0), ((boundary * weight).sum(dim=1) + bias).abs())
    return spread / largest.clamp_min(torch.finfo(torch.float32).tiny)


def _attack(
    ask: Callable[[Tensor, Tensor], Tensor], batch: Batch, budget: Budget, keys: Keys, steps: int
) -> Tensor:
    """Whether PGD, as the audit runs it, fools the modified model with each image (B,)."""
    inside = torch.zeros_like(batch.labels)

    def answer(current: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        leaf = current.detach().requires_grad_()
        logits = reachable(ask(leaf, rows), leaf)
        return leaf, logits, cross_entropy(logits, inside[rows])

    rows = torch.arange(len(batch), device=batch.images.device)
    length = budget.size(batch.images) * (FULL_WAY / steps)
    begin = budget.sample(batch.images, keys.fold("start"))
    climbed = climb(answer, batch.images, inside, begin, rows, budget=budget, length=length, steps=steps)
    return ~climbed.held


@contextmanager
def _features(model: nn.Module, images: Tensor) -> Iterator[tuple[FeaturesOf, str]]:
    """Inside the block, a function to the features that enter the model's last linear layer, and the words for them.

    They are the logits where the answers are not those of a linear layer.
    """
    layer = _last_layer(model, images[:1])
    inputs_of_layer: list[Tensor] = []
    if layer is None:
        yield lambda inputs: (model(inputs),) * 2, "logits"
        return

    def features(inputs: Tensor) -> tuple[Tensor, Tensor]:
        inputs_of_layer.clear()
        logits = model(inputs)
        return inputs_of_layer[-1], logits

    handle = layer.register_forward_pre_hook(lambda _, arguments: inputs_of_layer.append(arguments[0]))
    try:
        yield features, "features that enter its last layer"
    finally:
        handle.remove()


@torch.no_grad()
def _last_layer(model: nn.Module, images: Tensor) -> nn.Linear | None:
    """The linear layer whose outputs are the model's answers."""
    outputs: dict[nn.Linear, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda layer, _, output: outputs.update({layer: output}))
        for module in model.modules()
        if type(module) is nn.Linear
    ]
    try:
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    same = [
        layer
        for layer, output in outputs.items()
        if output.shape == logits.shape and torch.equal(output, logits)
    ]
    return same[-1] if same else None
