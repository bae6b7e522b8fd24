"""The cases that ``attack_cases.py`` runs: networks, images, budgets and options, drawn at random.

Among them are empty batches, images of one pixel, images on the border of the box and beside it, every floating type,
radii for a batch, an image, a pixel and a channel, radii of 0, frozen pixels, networks without gradients, with answers
that are all equal, or far too steep. The options are those of the catalogue, so that a new attack gets its cases.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import counterpart
from counterpart.attacks.on_parts import Guides, sorted_guides
from counterpart.budget import L0, L1, L2, Budget, Linf, Patch
from counterpart.catalogue import Option
from counterpart.catalogue.attacks import ATTACKS, EVERY_NORM
from counterpart.contracts import Attacked, NamedAttack, PartOutput
from counterpart.losses.classification import LOSSES

CLASSES = 4
MADE_OF_OTHERS = {"transfer": counterpart.transfer, "worst-case": counterpart.worst_case}
COUNTS = {
    "queries": (1, 5, 20, 60),
    "draws": (1, 3),
    "search_steps": (1, 2, 5),
    "candidates": (2, 4, 10),
    "eot": (1, 1, 2),
    "steps": (1, 2, 3, 10),
}
FLOATS = (1e-3, 0.02, 0.3, 0.9, 1.0, 30.0)


@dataclass(frozen=True)
class Case:
    """One call of an attack.

    Attributes:
        model: the attacked network.
        images: (B, C, H, W) in [0, 1], of any floating type.
        labels: (B,) the classes to move away from.
        budget: what is allowed.
        options: everything else that the attack takes.
        at_the_door: whether the attack is called as it is exported, and not as the evaluator calls it.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    budget: Budget
    options: Mapping[str, Any]
    at_the_door: bool


@cache
def attacks() -> Mapping[str, Callable[..., Attacked]]:
    """Every attack by name: those of the catalogue, and the two that are made of others."""
    named = {name: entry.load() for name, entry in ATTACKS.items()}
    return {**named, **{name: attack.__wrapped__ for name, attack in MADE_OF_OTHERS.items()}}


def as_computed(images: Tensor) -> Tensor:
    """The images in the type that attacks compute with."""
    return images if images.dtype == torch.float64 else images.float()


def make_case(name: str, draws: random.Random) -> Case:
    """Draw a case of an attack."""
    generator = torch.Generator().manual_seed(draws.getrandbits(40))
    shape, of_parts = draw_shape(draws), name in ("single-staged", "two-staged")
    at_the_door = draws.random() < 0.5
    kinds = [torch.float32, torch.float32, torch.float64]
    if at_the_door:  # the functions behind it take no narrower types
        kinds += [torch.float16, torch.bfloat16]
    images = draw_images(shape, draws, generator).to(draws.choice(kinds))
    model = Parts(shape, draws, generator) if of_parts else draw_network(shape, draws, generator)
    model = model.to(as_computed(images).dtype).eval()
    labels = torch.randint(CLASSES, shape[:1], generator=generator)
    if draws.random() < 0.7:  # what the network answers: only such images are attacked
        labels = model(as_computed(images)).argmax(dim=1)
    norms = ATTACKS[name].facts.norms if name in ATTACKS else EVERY_NORM
    budget = draw_budget(draws.choice(norms), shape, draws, generator)
    case = Case(model, images, labels, budget, {}, at_the_door)
    return replace(case, options=draw_options(case, name, draws, generator))


def draw_shape(draws: random.Random) -> tuple[int, int, int, int]:
    """A shape (B, C, H, W), often of one pixel, sometimes of no image."""
    count = draws.choice((0, 1, 1, 2, 3, 5))
    sides = (1, 1) if draws.random() < 0.15 else (draws.randint(1, 6), draws.randint(1, 6))
    return count, draws.choice((1, 3)), *sides


def draw_images(shape: tuple[int, ...], draws: random.Random, generator: torch.Generator) -> Tensor:
    """Images in [0, 1]: anywhere, on the border of the box, next to it, and of one value."""
    anywhere = torch.rand(shape, generator=generator, dtype=torch.float64)
    kind = draws.choice(("anywhere", "border", "mixed", "beside", "flat", "bytes"))
    if kind == "border":
        return anywhere.round()
    if kind == "mixed":
        return torch.where(torch.rand(shape, generator=generator) < 0.5, anywhere.round(), anywhere)
    if kind == "beside":
        return (anywhere.round() - draws.choice((1e-3, 1e-7, 1e-30, 1e-310))).abs()
    if kind == "flat":
        return torch.full(shape, draws.choice((0.0, 0.5, 1.0, 1 / 3)), dtype=torch.float64)
    if kind == "bytes":
        return (255 * anywhere).round() / 255
    return anywhere


def draw_radius(norm: str, draws: random.Random) -> float:
    """A radius: of ordinary size, none at all, next to none, or everything."""
    largest = 1.0 if norm == "linf" else draws.choice((3.0, 100.0))
    return draws.choice((0.0, 1e-8, 1e-3, 8 / 255, 0.3, 0.5, 0.8, largest, largest))


def draw_budget(
    norm: str, shape: tuple[int, ...], draws: random.Random, generator: torch.Generator
) -> Budget:
    """A budget of a norm, for images of a shape."""
    count, channels, height, width = shape
    if norm == "l0":
        return L0(draws.randint(1, height * width + 2))
    if norm == "patch":
        return Patch(draws.randint(1, max(height, width) + 1))
    radius = draw_radius(norm, draws)
    of_images = radius * torch.rand(count, generator=generator)
    if norm == "linf":
        planes = [(count, 1, height, width), (count, channels, height, width)]
        plane = radius * torch.rand(draws.choice(planes), generator=generator)
        plane = torch.where(torch.rand(plane.shape, generator=generator) < 0.3, 0.0, plane)
        full = radius if radius > 0 and draws.random() < 0.2 else None
        return Linf(draws.choice((radius, of_images, plane)), multiplied_from=full)
    masks = [(count, 1, height, width), (count, channels, height, width)]
    mask = (torch.rand(draws.choice(masks), generator=generator) < draws.choice((0.0, 0.5, 1.0))).float()
    movable = mask if draws.random() < 0.5 else None
    kind = L2 if norm == "l2" else L1
    return kind(draws.choice((radius, of_images)), movable)


class Parts(nn.Module):
    """A part model: three maps of the pixels, and classes from their means."""

    full_resolution = False

    def __init__(self, shape: tuple[int, ...], draws: random.Random, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("part_classes", torch.arange(CLASSES))
        self.maps = filled(nn.Conv2d(shape[1], CLASSES + 1, 1), draws, generator)

    def forward_parts(self, images: Tensor) -> PartOutput:
        """Classes and parts, each part at its pixel."""
        part_logits = self.maps(images - 0.5)
        return PartOutput(self.classify_parts(part_logits), part_logits)

    def classify_parts(self, part_logits: Tensor) -> Tensor:
        """The classes by the means of their parts."""
        return part_logits[:, 1:].mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """The classes."""
        return self.forward_parts(images).logits


class Centred(nn.Module):
    """Moves [0, 1] to [-0.5, 0.5], so that small networks have boundaries within it."""

    def forward(self, images: Tensor) -> Tensor:
        """The moved images."""
        return images - 0.5


def draw_network(shape: tuple[int, ...], draws: random.Random, generator: torch.Generator) -> nn.Module:
    """A small network: linear, or of two layers; with ordinary, no, equal or far too large weights."""
    _, channels, height, width = shape
    if draws.random() < 0.6:
        layers = [nn.Linear(channels * height * width, CLASSES)]
    else:
        layers = [nn.Linear(channels * height * width, 6), nn.ReLU(), nn.Linear(6, CLASSES)]
    return nn.Sequential(Centred(), nn.Flatten(), *(filled(layer, draws, generator) for layer in layers))


def filled(layer: nn.Module, draws: random.Random, generator: torch.Generator) -> nn.Module:
    """The layer with weights of a size that is drawn."""
    size = draws.choice((1.0, 1.0, 1.0, 3.0, 3.0, 10.0, 0.0, 1e-6, 1e4, 1e-25))
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
    return layer


def draw_options(case: Case, name: str, draws: random.Random, generator: torch.Generator) -> dict[str, Any]:
    """The options of an attack: those of the catalogue, few steps, and what some attacks need besides."""
    options = {}
    for option in ATTACKS[name].options if name in ATTACKS else ():
        value = draw_option(option, draws)
        if value is not None:
            options[option.name] = value
    if name == "autoattack":
        options["version"] = draws.choice(("few-classes", "ten-steps"))
    if "loss" in options:
        options["loss"] = LOSSES[options["loss"]]
    if draws.random() < 0.3:  # a start may lie outside the budget
        options["start"] = draw_images(case.images.shape, draws, generator).to(as_computed(case.images))
    steep = partial(counterpart.pgd.__wrapped__, steps=2)
    if name == "transfer":
        options |= {"surrogate": case.model, "attack": steep}
    if name == "worst-case":
        blind = partial(counterpart.square.__wrapped__, queries=5)
        options["attacks"] = [
            NamedAttack(kind, attack, kind) for kind, attack in (("a", steep), ("b", blind))
        ]
    if name in ("single-staged", "two-staged"):
        options |= draw_parts(case, options.get("strategy"), generator)
    return options


def draw_option(option: Option, draws: random.Random) -> Any:
    """A value of an option, or None where it is left out."""
    if option.name in COUNTS:
        return draws.choice(COUNTS[option.name])
    if option.choices:
        return draws.choice(option.choices)
    if option.type is bool:
        return draws.random() < 0.5
    if option.name in ("target", "windows", "stride", "step_size") and draws.random() < 0.5:
        return None  # the code decides
    if option.type is float:
        below = 31.0 if option.below is None else option.below
        highest = 30.0 if option.high is None else option.high
        return draws.choice([value for value in FLOATS if value < below and value <= highest])
    return draws.randint(1, CLASSES - 1)  # restarts, targets


def draw_parts(case: Case, strategy: str | None, generator: torch.Generator) -> dict[str, Any]:
    """The parts of a case's images, and masks to lead to where a strategy wants them."""
    count, _, height, width = case.images.shape
    parts = torch.randint(CLASSES + 1, (count, height, width), generator=generator)
    options = {"parts": parts, "annotated": torch.rand(count, generator=generator) < 0.7}
    if strategy in (None, "untargeted"):
        return options
    masks = torch.randint(CLASSES + 1, (2 * CLASSES, height, width), generator=generator)
    guides = Guides(lambda rows: masks[rows], torch.arange(2 * CLASSES) % CLASSES)
    if strategy == "sorted":
        guides = sorted_guides(guides, case.model, CLASSES, (height, width))
    return {**options, "guides": guides}
