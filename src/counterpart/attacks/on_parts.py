"""Attacks that aim at the parts of a part model: at its masks and its classes at once, or first at the masks.

Sitawarin et al. 2023, arXiv 2209.09117, appendix D.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..budget import Budget
from ..checks import check_labels, check_unit_range
from ..contracts import Attacked, Classifier, PartModel, PartOutput, Probe, View
from ..losses.classification import cross_entropy
from ..losses.segmentation import part_cross_entropy
from ..part_maps import part_counts
from ..seeding import Keys
from .projected_gradient import Answer, climb, climb_from, pgd
from .starts import images_of

STRATEGIES = ("untargeted", "random", "likely", "most-confident", "sorted")
"""What stage one of the two-staged attack moves to, in each restart:

- ``untargeted``: away from the true mask.
- ``random``: to a random mask of a random wrong class, as the paper says.
- ``likely``: to a random mask of the wrong class of this restart's rank, likeliest first: the code's "random".
- ``most-confident``: to another random mask of the likeliest wrong class.
- ``sorted``: to the masks that the model takes most surely for the likeliest wrong class (``sorted_guides``).

Only wrong classes that own a mask count; with fewer classes or masks than restarts, the first ones come again. Where
``sorted`` finds no mask that the model takes for a wrong class, the image stays as it is.
"""

PartAttackLoss: TypeAlias = Callable[[PartOutput, Tensor], Tensor]
"""(what a model says of some images, which rows of the batch they are) -> (b,) what to raise."""

SURE = 1000.0  # logit of a part where a mask is shown to the second half of a model, as in the published code


@dataclass(frozen=True)
class Guides:
    """Masks that a segmenter can be led to.

    Attributes:
        read: (positions (b,)) -> part ids (b, H, W), int64.
        classes: (M,) the class that each mask speaks for.
        order: whether they lie in order, the one that a model is surest of first within each class.
    """

    read: Callable[[Tensor], Tensor]
    classes: Int[Tensor, " m"]
    in_order: bool = False


@torch.no_grad()
def sorted_guides(
    guides: Guides, model: PartModel, num_parts: int, cells: tuple[int, int], batch_size: int = 256
) -> Guides:
    """The same masks, each for the class that the second half of a model sees in it, the surest first.

    Differs from the published code: masks are shown at the segmenter's own resolution, each cell as the part that most
    of its pixels belong to.

    Args:
        guides: their classes play no part.
        model: its ``classify_parts`` is asked.
        num_parts: P.
        cells: h, w of its part logits.
        batch_size: masks asked about at once.

    Raises:
        UserError: the model's head looks at more than part logits.
    """
    answers, scores = [], []
    for positions in torch.split(torch.arange(len(guides.classes)), batch_size):
        likeliest = part_counts(guides.read(positions), num_parts, cells).argmax(dim=1)
        part_logits = nn.functional.one_hot(likeliest, num_parts + 1).permute(0, 3, 1, 2) * SURE
        sure, answer = model.classify_parts(part_logits).softmax(dim=1).max(dim=1)
        answers.append(answer.cpu())
        scores.append(sure.cpu())
    order = torch.cat(scores).argsort(descending=True, stable=True)
    return Guides(lambda rows: guides.read(order[rows.cpu()]), torch.cat(answers)[order], in_order=True)


def single_staged(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    parts: Tensor,
    annotated: Tensor,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    share: float = 0.5,
    full_resolution: bool = False,
    steps: int = 100,
    step_size: float | None = None,
    restarts: int = 5,
    to_the_end: bool = False,
) -> Attacked:
    """PGD on (1 - share) times the loss of the class plus share times the loss of the parts (Table 11).

    With ``share`` 1 it is the attack on the segmenter alone (Table 13). There is nothing to attack in the parts of an
    image without annotation.

    Args:
        model: a ``PartModel``, or a view of one.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        parts: (B, H, W) true part ids.
        annotated: (B,) whether they are known.
        budget: the allowed perturbations.
        keys: source of the random starts.
        start: begin the first restart here instead.
        share: weight of the parts, 0 to 1.
        full_resolution: whether the loss of parts is computed at the images' resolution.
        steps: gradient steps of each restart.
        step_size: default 2.5 / steps of each image's largest radius. The paper: max(0.001, eps / 40).
        restarts: independent random starts; only images whose class still stands meet the next.
        to_the_end: take every step, for a look at the parts, also where the class is wrong already; one restart.

    Returns:
        For each image the first that fools the class, else the last iterate; in ``budget``. Differs from the paper:
        there the restart of the highest loss is kept, which may be one that fools nobody.
    """
    check_unit_range(images)
    if to_the_end and restarts > 1:
        raise ValueError(f"to_the_end takes one start, got restarts={restarts}.")

    apart = _apart(parts, annotated, full_resolution)

    def loss(output: PartOutput, rows: Tensor) -> Tensor:
        of_class = cross_entropy(output.logits, labels[rows], None)
        return (1 - share) * of_class + share * apart(output, rows)

    def begin(restart: int) -> Tensor:
        if start is not None and restart == 0:
            return images_of(start)
        return budget.sample(images, keys.fold(restart))

    return climb_from(
        _answer(model, labels, loss), images, labels, begin, budget=budget,
        length=_length(step_size, budget, images, steps), steps=steps, restarts=restarts, to_the_end=to_the_end,
    )  # fmt: skip


def two_staged(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    parts: Tensor,
    annotated: Tensor,
    guides: Guides | None = None,
    budget: Budget,
    keys: Keys,
    start: Tensor | Probe | None = None,
    strategy: str = "random",
    aimed: bool = True,
    published: bool = False,
    full_resolution: bool = False,
    steps: int = 100,
    step_size: float | None = None,
    restarts: int = 5,
) -> Attacked:
    """First lead the segmenter to other masks, then attack the class from there (Table 12).

    Args:
        model: a ``PartModel``, or a view of one.
        images: (B, C, H, W) clean images in [0, 1].
        labels: (B,) true classes.
        parts: (B, H, W) true part ids; only ``untargeted`` reads them.
        annotated: (B,) whether they are known.
        guides: masks to lead to; all but ``untargeted`` need them.
        budget: the allowed perturbations, of both stages together.
        keys: source of the random starts and choices.
        start: begin stage one of the first restart here instead.
        strategy: one of ``STRATEGIES``, which say what stage one moves to.
        aimed: stage two moves towards the class of the guide, as the code does, and not only away from the true one.
        published: stage two starts at the clean image, whatever stage one found: the slip of the published code that
            its Table 12 carries.
        full_resolution: whether the loss of parts is computed at the images' resolution.
        steps: gradient steps of each stage.
        step_size: default 2.5 / steps of each image's largest radius. The paper: 0.001.
        restarts: only images whose class still stands meet the next.

    Returns:
        For each image the first that fools the class, else the last iterate; in ``budget``. Differs from the paper:
        there the restart of the highest loss is kept, which may be one that fools nobody.

    Raises:
        ValueError: no guides, or none of a wrong class.
    """
    check_unit_range(images)
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}.")
    choice = None if strategy == "untargeted" else _choose(model, images, labels, guides, strategy, keys)
    led = torch.ones_like(labels, dtype=torch.bool) if choice is None else choice.leads
    survivors = led.nonzero()[:, 0]
    attacked = images.clone()
    forwards = torch.full_like(labels, 0 if choice is None else 1)  # a choice begins with the clean answers
    backwards = torch.zeros_like(labels)
    for restart in range(restarts):
        if len(survivors) == 0:
            break
        clean, true, within = images[survivors], labels[survivors], budget.select(survivors)
        draws = keys[survivors]
        loss, aims = _lead(choice, restart, survivors, parts, annotated, full_resolution)
        origin = start if restart == 0 else None
        begin = within.sample(clean, draws.fold(restart)) if origin is None else images_of(origin)[survivors]
        stride = _length(step_size, within, clean, steps)
        first = climb(
            _answer(model, true, loss), clean, true, begin, torch.arange(len(survivors), device=images.device),
            budget=within, length=stride, steps=steps, to_the_end=True,
        )  # fmt: skip
        second = pgd(
            model, clean, true, budget=within, keys=draws.fold("second stage", restart), steps=steps,
            start=clean if published else first.images, target=aims if aimed else None, step_size=stride,
        )  # fmt: skip
        attacked[survivors] = second.images
        with torch.no_grad():
            held = model(second.images).argmax(dim=1) == true
        forwards[survivors] += first.forwards + second.forwards + 1
        backwards[survivors] += first.backwards + second.backwards
        survivors = survivors[held]
    return Attacked(attacked, forwards, backwards)


def _lead(
    choice: "_Choice | None",
    restart: int,
    rows: Tensor,
    parts: Tensor,
    annotated: Tensor,
    full_resolution: bool,
) -> tuple[PartAttackLoss, Tensor | None]:
    """What stage one raises for some rows of the batch, and the classes of the masks that it leads to, if any."""
    if choice is None:
        return _apart(parts[rows], annotated[rows], full_resolution), None
    masks, classes = choice(restart, rows)
    return _towards(masks, full_resolution), classes


def _choose(
    model: Classifier, images: Tensor, labels: Tensor, guides: Guides | None, strategy: str, keys: Keys
) -> "_Choice":
    """Ask the model for its clean answers, and choose by them."""
    if guides is None:
        raise ValueError(f"strategy {strategy} needs masks to lead to.")
    if (strategy == "sorted") != guides.in_order:
        raise ValueError(f"strategy {strategy} got guides of another: see sorted_guides.")
    with torch.no_grad():
        logits = model(images)
    check_labels(labels, logits.shape[1])
    return _Choice(guides, strategy, logits, labels, keys)


class _Choice:
    """Which guides the images of a batch are led to."""

    def __init__(self, guides: Guides, strategy: str, logits: Tensor, labels: Tensor, keys: Keys) -> None:
        self.guides, self.strategy, self.keys = guides, strategy, keys
        self.classes = guides.classes.to(logits.device)
        owned = torch.bincount(self.classes, minlength=logits.shape[1]) > 0
        self.allowed = owned & (labels[:, None] != torch.arange(logits.shape[1], device=logits.device))
        self.leads = self.allowed.any(dim=1)
        # Masks are sorted by what the model takes them for, which may be one class: no fault of the data.
        if not guides.in_order and not self.leads.all():
            row = int((~self.leads).nonzero()[0, 0])
            raise ValueError(
                f"no mask of a class other than {int(labels[row])} to lead an image of that class to: a two-staged "
                "attack needs annotated images of two classes."
            )
        self.ranked = logits.masked_fill(~self.allowed, -torch.inf).argsort(
            dim=1, descending=True, stable=True
        )

    def __call__(self, restart: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (b, H, W) and their classes (b,), for some rows of the batch."""
        number = self.allowed[rows].sum(dim=1)
        rank, draws = torch.zeros_like(number), self.keys[rows]
        if self.strategy == "random":
            rank = draws.fold("class", restart).integers(0, number)
        elif self.strategy == "likely":
            rank = restart % number
        chosen = self.ranked[rows].gather(1, rank[:, None])[:, 0]
        inside = self.classes == chosen[:, None]
        order = torch.arange(len(self.classes), device=rows.device).expand_as(inside)
        if not self.guides.in_order:
            order = draws.fold("mask").bits(0, (len(self.classes),))
        place = restart % inside.sum(dim=1)
        last = torch.iinfo(torch.int64).max
        nth = order.masked_fill(~inside, last).argsort(dim=1, stable=True).gather(1, place[:, None])[:, 0]
        return self.guides.read(nth).to(rows.device), chosen


def _answer(model: Classifier, labels: Tensor, loss: PartAttackLoss) -> Answer:
    """Ask a part model, or a view of one, for all that it says."""

    def answer(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(model, View):
            probe = model.probe(images)
            leaf, output = probe.images, _output(probe)
        else:
            assert isinstance(model, PartModel)
            leaf = images.detach().clone().requires_grad_()
            output = model.forward_parts(leaf)
        check_labels(labels[rows], output.logits.shape[1])
        return leaf, output.logits, loss(output, rows)

    return answer


def _output(probe: Probe) -> PartOutput:
    if probe.part_logits is None:
        raise ValueError("an attack on parts needs a model that predicts parts.")
    return PartOutput(probe.logits, probe.part_logits)


def _apart(parts: Tensor, annotated: Tensor, full_resolution: bool) -> PartAttackLoss:
    """Away from the true masks, where they are known."""
    return lambda output, rows: part_cross_entropy(
        output.part_logits, parts[rows], annotated[rows], full_resolution
    )


def _towards(masks: Tensor, full_resolution: bool) -> PartAttackLoss:
    """To other masks."""
    everywhere = torch.ones(len(masks), dtype=torch.bool, device=masks.device)
    away = _apart(masks, everywhere, full_resolution)
    return lambda output, rows: -away(output, rows)


def _length(step_size: float | None, budget: Budget, images: Tensor, steps: int) -> float | Tensor:
    return step_size if step_size is not None else budget.size(images) * (2.5 / steps)
