"""The training methods: each is an objective, under the full budget or under one that a mask draws."""

from dataclasses import dataclass

from .entries import Entry


@dataclass(frozen=True)
class MethodFacts:
    """The facts about a training method that other parts of the program read.

    Attributes:
        attacked: whether it trains on adversarial images.
        masked: whether a mask narrows its budget, by the settings ``mask.*``.
        robust_term: whether its loss has a second term for attacked images, so that ``train.beta`` and
            ``train.bn_batches`` count.
        generations: the values of ``attack.generation`` that it works with.
        part_labels: whether a loss of parts can be added to its loss.
    """

    attacked: bool = True
    masked: bool = False
    robust_term: bool = False
    generations: tuple[str, ...] = ("pgd",)
    part_labels: bool = True


_ALL_GENERATIONS = ("pgd", "minimum-margin", "n-fgsm")

_ENTRIES = (
    Entry(
        "clean", "clean", "objectives:standard",
        "training on clean images, without an attack",
        MethodFacts(attacked=False),
    ),
    Entry(
        "at", "AT", "objectives:adversarial",
        "adversarial training, on images that an attack perturbed",
        MethodFacts(generations=_ALL_GENERATIONS),
    ),
    Entry(
        "trades", "TRADES", "objectives:trades",
        "the loss on clean images, and a second term that asks for the same answer on attacked ones",
        MethodFacts(robust_term=True),
    ),
    Entry(
        "mart", "MART", "objectives:mart",
        "adversarial training that weighs images by how wrong their clean answer is",
        MethodFacts(robust_term=True, part_labels=False),
    ),
    Entry(
        "part", "PART", "objectives:adversarial",
        "adversarial training in which each pixel has a radius of its own",
        MethodFacts(masked=True, generations=_ALL_GENERATIONS),
    ),
    Entry(
        "part-t", "PART-T", "objectives:trades",
        "TRADES in which each pixel has a radius of its own",
        MethodFacts(masked=True, robust_term=True),
    ),
    Entry(
        "part-m", "PART-M", "objectives:mart",
        "MART in which each pixel has a radius of its own",
        MethodFacts(masked=True, robust_term=True, part_labels=False),
    ),
)  # fmt: skip
METHODS = {entry.key: entry for entry in _ENTRIES}
