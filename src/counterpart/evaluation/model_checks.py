"""Doubts about a model or its result: signs that a robust accuracy says less than it seems to.

Each doubt has a name and a sentence. Doubts are kept in the records and shown in the report. They forbid
nothing.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..batch import Batch
from ..contracts import Classifier, NamedAttack
from ..data.image_sets import ImageSet
from ..data.twins import count_twins
from ..losses.classification import cross_entropy, dlr
from ..models.adapters import bounds
from ..models.random_passes import seeded_passes
from ..seeding import derive
from ..statistics import wilson
from .answers import logits_of
from .ledger import LedgerRow

SAME = 1e-4  # share of the logits' range that the order of additions may change
FAITHFUL = 0.1  # share of the logits' range that a view may differ by: bf16 stays within a few hundredths
BETTER = 0.1  # gain in clean accuracy by another input range that rounding and luck do not explain
COPIES = 4  # the number of copies of an image, and of passes, that tell what a batch has in common
ALWAYS = 0.95  # share of images with the same answer from which on answers hardly vary
# That share must exceed the share of the class itself by this much, or else it is the data that hardly vary.
SURPLUS = 0.25
# The share of images that a plain gradient attack misses and others fool: seldom more with honest gradients.
GAP = 0.08
BLACK_BOX_GAIN = 0.002  # share of images, as in the published AutoAttack

# Attacks of a single step, such as "PGD-1" and "PGD-1x5 step 2/255", which may well miss much.
ONE_STEP = re.compile(r"FGSM|\S+-1(x\d+)?( |$)")
WAY_OUT = (
    " Where a part of the forward rounds, detaches or runs under no_grad, wrap it in counterpart.straight_through; or "
    "ask for attacks without gradients, such as square and rays."
)
INPUTS = {
    "normalised with the statistics of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "normalised with the statistics of CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "scaled to [-1, 1]": ((0.5,), (0.5,)),
    "in 0 .. 255": ((0.0,), (1 / 255,)),
}


@dataclass(frozen=True)
class Doubt:
    """A warning: a short name, and a text that says what was seen and what to do."""

    name: str
    text: str


def model_doubts(
    model: nn.Module, view: Classifier, batch: Batch, *, by_draws: bool = False, averaged: bool = False
) -> list[Doubt]:
    """The doubts that a few clean images raise about a model before it is attacked.

    Args:
        model: the original model.
        view: the copy of the model that attacks will search on.
        batch: at least two clean images in [0, 1], with their labels.
        by_draws: whether each image is judged by several draws or votes.
        averaged: whether attacks average their gradients over several passes.
    """
    model.eval()
    logits = logits_of(model, batch.images)
    random = _is_random(model, batch, logits)
    checks = (
        _training_mode(model),
        _probabilities(logits) or _bounded(model, batch),
        *_random(model, batch, by_draws, averaged if random else None),
        None if random else _batch_dependent(model, batch, logits),
        None if random else _other_view(view, batch, logits),
        _other_inputs(model, batch, logits),
        *_zero_gradients(view, batch, logits),
    )
    return [doubt for doubt in checks if doubt is not None]


def data_doubts(judged: ImageSet, training_images: ImageSet) -> list[Doubt]:
    """A doubt if some images on which a model is judged are also among its training images.

    Args:
        judged: the images that the model is judged on.
        training_images: the training images of the same data set.
    """
    twins = count_twins(judged, training_images)
    if not twins:
        return []
    return [
        Doubt(
            "images seen in training",
            f"{twins:,} of {len(judged):,} {judged.split} images have the same content as a training image: what is "
            "measured on them says nothing about new images.",
        )
    ]


def classifier_doubts(rows: Sequence[LedgerRow], classes: Sequence[str]) -> list[Doubt]:
    """The doubts that the clean answers raise: whether the model classifies at all.

    Chance is the accuracy of the better of two blind guesses. One guess is a random class out of K. The
    other, where the images are of several classes, is always the most frequent class.

    Args:
        rows: the rows of an evaluation.
        classes: the names of the K classes.
    """
    n, doubts = len(rows), []
    answers, labels = Counter(row.clean for row in rows), Counter(row.label for row in rows)
    answer, count = answers.most_common(1)[0]
    if count >= ALWAYS * n and count - labels[answer] >= SURPLUS * n:
        doubts.append(
            Doubt(
                "answers hardly vary",
                f"the model answers {count:,} of {n:,} clean images with {classes[answer]!r}, which {labels[answer]:,} "
                "of them are: what hardly depends on the image stands every attack, and is no robustness.",
            )
        )
    right = sum(row.right for row in rows)
    low, high = wilson(right, n)
    chance = max(1 / len(classes), max(labels.values()) / n if len(labels) > 1 else 0)
    if low <= chance and len(classes) > 1:
        doubts.append(
            Doubt(
                "clean accuracy near chance",
                f"{right:,} of {n:,} clean images are right ({right / n:.1%}, interval {low:.1%} to {high:.1%}), and "
                f"guessing reaches {chance:.1%}: the model is not shown to classify at all, so its robust accuracy "
                "says nothing.",
            )
        )
    return doubts


def result_doubts(
    rows: Sequence[LedgerRow],
    attacks: Sequence[NamedAttack],
    individual: bool = False,
    weights: Sequence[float] | None = None,
) -> list[Doubt]:
    """The doubts that the results of the attacks raise: whether gradients led them where they should.

    Args:
        rows: the rows of an evaluation. They may name attacks that are none of ``attacks``, which felled an
            image before; such a fall says nothing about ``attacks``.
        attacks: the attacks in the order in which they were run.
        individual: whether each attack met all images that the model gets right. Otherwise a fallen image is
            not met by later attacks, and says nothing about them.
        weights: how many images each row stands for, where some attacks were tried on a sample; by default 1.
    """
    weights = [1] * len(rows) if weights is None else weights
    doubts, lines = [], list(dict.fromkeys(attack.line for attack in attacks))
    line_of = {attack.name: attack.line for attack in attacks}
    black_box = {attack.line for attack in attacks if not attack.by_gradient}
    fallen = [{line_of[name] for name in row.fooled if name in line_of} for row in rows]
    by_gradient = [line for line in lines if line not in black_box]
    if by_gradient:
        start = 0 if individual else lines.index(by_gradient[0])
        late = black_box.intersection(lines[start:])
        alone = sum(
            weight
            for f, weight in zip(fallen, weights, strict=True)
            if not f.isdisjoint(late) and f.isdisjoint(by_gradient)
        )
        if alone > BLACK_BOX_GAIN * len(rows):
            doubts.append(
                Doubt(
                    "black-box gains",
                    f"attacks without gradients fooled {round(alone)} of {len(rows)} images that no gradient attack "
                    "before them had: gradients may be masked. Try: counterpart audit",
                )
            )
    iterative = [line for line in by_gradient if not ONE_STEP.match(line)]
    if iterative:
        plain = iterative[0]
        others = set(lines if individual else lines[lines.index(plain) + 1 :])
        missed = sum(
            weight
            for f, weight in zip(fallen, weights, strict=True)
            if plain not in f and not f.isdisjoint(others)
        )
        if missed > GAP * len(rows):
            doubts.append(
                Doubt(
                    "gap between attacks",
                    f"{plain} missed {round(missed)} of {len(rows)} images that others fooled "
                    f"({missed / len(rows):.1%}; above {GAP:.0%} is seldom seen with honest gradients). "
                    "Try: counterpart audit",
                )
            )
    return doubts


def _training_mode(model: nn.Module) -> Doubt | None:
    """A doubt if ``eval()`` leaves some module in training mode."""
    still = [name or type(model).__name__ for name, module in model.named_modules() if module.training]
    if not still:
        return None
    return Doubt("training mode", f"eval() leaves {', '.join(still[:3])} in training mode.")


def _probabilities(logits: Tensor) -> Doubt | None:
    """A doubt if the model answers with probabilities in place of logits.

    They may be the probabilities of one network, sums of those of several networks, or logarithms that are
    cut off.
    """
    sums, lowest = logits.sum(dim=1), logits.min()
    total = float(sums.mean())
    if bool((logits >= 0).all()) and total > 0 and bool(((sums - total).abs() <= 1e-5 * total).all()):
        what = (
            "probabilities"
            if abs(total - 1) <= 1e-5
            else f"sums of probabilities, {total:.4g} for each image"
        )
        return Doubt(
            "probabilities",
            f"the model answers with {what}: attacks that need logits find less. Remove its softmax.",
        )
    normalised = bool((logits.logsumexp(dim=1).abs() <= 1e-3).all())
    if normalised and int((logits == lowest).sum()) > 1:  # no two honest logarithms are equal to the last bit
        return Doubt(
            "probabilities",
            f"the model answers with logarithms of probabilities that are cut off at {float(lowest):.4g}: below, they "
            "have no gradient, and attacks find less. Return log_softmax of the logits, or these.",
        )
    return None


def _bounded(model: nn.Module, batch: Batch) -> Doubt | None:
    """A doubt if answers never leave an interval, as behind a sigmoid or a tanh."""
    limits = bounds(lambda images: logits_of(model, images), batch.images)
    if limits is None:
        return None
    function = "a sigmoid" if limits == "[0, 1]" else "a tanh"
    return Doubt(
        "bounded outputs",
        f"the model's answers never leave {limits} ({function} at its end?). Close to a bound they hardly change, so "
        "that gradients vanish and attacks that climb them find less: the model looks more robust than it is. Return "
        "what enters that function.",
    )


def _apart(first: Tensor, second: Tensor) -> bool:
    """Whether some image has logits that differ by more than rounding explains."""
    scale = first.amax(dim=1) - first.amin(dim=1)
    return bool(((first - second).abs().amax(dim=1) > SAME * scale.clamp_min(1e-12)).any())


def _is_random(model: nn.Module, batch: Batch, logits: Tensor) -> bool:
    """Whether answers differ between passes on the same images."""
    return any(_apart(logits, logits_of(model, batch.images)) for _ in range(3))


def _random(model: nn.Module, batch: Batch, by_draws: bool, averaged: bool | None) -> list[Doubt]:
    """Doubts about how a model with random answers is judged; ``averaged`` is None for one that answers the same."""
    if averaged is None:
        same = "the model answers the same in every pass: evaluate.draws and evaluate.votes measure nothing more."
        return [Doubt("no random answers", same)] if by_draws else []
    doubts = []
    advice = [
        *(
            []
            if by_draws
            else ["--evaluate.draws 20 judges each image by the share of its draws that are right"]
        ),
        *([] if averaged else ["--evaluate.eot 20 averages the gradients of attacks"]),
    ]
    if advice:
        what = "" if by_draws else "one draw decides each image, and a verification cannot repeat it; "
        what += "" if averaged else "attacks that follow the gradients of single passes find less; "
        doubts.append(
            Doubt(
                "random answers",
                f"the model's answers differ from pass to pass: {what.removesuffix('; ')}. {'; '.join(advice)}; "
                "--evaluate.votes lets passes vote; --evaluate.fixed-noise shows every pass the same noise.",
            )
        )
    if _apart(*(_seeded_logits(model, batch.images, 0) for _ in range(2))):
        doubts.append(
            Doubt(
                "draws that no seed repeats",
                "the model draws from a random generator that is neither a global one nor an attribute of a module: "
                "another start gives other numbers. Keep the generator as an attribute, or draw from torch's.",
            )
        )
    elif _draws_once_for_a_batch(model, batch):
        doubts.append(
            Doubt(
                "draws shared by a batch",
                "the model draws once for all images of a batch, which are then right or wrong together: intervals "
                "over images are too narrow. --evaluate.batch-size 1 draws for each image.",
            )
        )
    return doubts


def _seeded_logits(model: nn.Module, images: Tensor, seed: int) -> Tensor:
    """The logits of a pass that draws what a seed says."""
    with seeded_passes(model, derive(seed, "random answers"), images.device):
        return logits_of(model, images)


def _draws_once_for_a_batch(model: nn.Module, batch: Batch) -> bool:
    """Whether copies of one image in a batch are answered alike in each pass, and passes otherwise."""
    copies = batch.images[:1].expand(COPIES, *batch.images.shape[1:]).contiguous()
    passes = [_seeded_logits(model, copies, seed) for seed in range(COPIES)]
    alike = not any(_apart(logits, logits[:1].expand_as(logits)) for logits in passes)
    return alike and any(_apart(passes[0], logits) for logits in passes)


def _batch_dependent(model: nn.Module, batch: Batch, logits: Tensor) -> Doubt | None:
    """A doubt if the answers for an image change when it is in a smaller batch."""
    half = (len(batch) + 1) // 2
    parts = [logits_of(model, batch.images[:half]), logits_of(model, batch.images[half:])]
    if not _apart(logits, torch.cat(parts)):
        return None
    return Doubt(
        "batch-dependent answers",
        "the answer for an image depends on the other images of its batch (batch statistics in eval mode?).",
    )


@torch.no_grad()
def _other_view(view: Classifier, batch: Batch, logits: Tensor) -> Doubt | None:
    """A doubt if the view that attacks search on answers otherwise than the model."""
    scale = logits.amax(dim=1) - logits.amin(dim=1)
    apart = int(((view(batch.images) - logits).abs().amax(dim=1) > FAITHFUL * scale.clamp_min(1e-12)).sum())
    if not apart:
        return None
    return Doubt(
        "view differs",
        f"the fast copy that attacks search on answers otherwise for {apart} of {len(batch)} images (a forward pass "
        "that depends on its data?): attacks find less than there is.",
    )


def _other_inputs(model: nn.Module, batch: Batch, logits: Tensor) -> Doubt | None:
    """A doubt if the model classifies much better when its input is normalised or scaled in a usual way."""
    right = (logits.argmax(dim=1) == batch.labels).float().mean().item()
    gains = {}
    for words, (mean, std) in INPUTS.items():
        if len(mean) not in (1, batch.images.shape[1]):
            continue
        shift, scale = (torch.tensor(v, device=batch.images.device).view(1, -1, 1, 1) for v in (mean, std))
        try:
            other = logits_of(model, (batch.images - shift) / scale).argmax(dim=1)
        except Exception:  # A model whose own code refuses such input in any way does not want it.
            continue
        gains[words] = (other == batch.labels).float().mean().item() - right
    best = max(gains, key=lambda words: gains[words], default=None)
    if best is None or gains[best] <= BETTER:
        return None
    return Doubt(
        "input range",
        f"{right:.0%} of {len(batch)} images are classified correctly in [0, 1], but {right + gains[best]:.0%} when "
        f"{best}: normalisation belongs inside the model.",
    )


def _zero_gradients(view: Classifier, batch: Batch, logits: Tensor) -> list[Doubt]:
    """A doubt for each loss that has no gradient on some images that are classified correctly."""
    right = logits.argmax(dim=1) == batch.labels  # DLR is rightly flat where the true class comes third
    batch, classes, doubts = batch.select(right), logits.shape[1], []
    if len(batch) == 0:
        return []
    for name, loss in (("cross-entropy", cross_entropy), ("DLR", dlr)):
        if loss is dlr and classes < 3:
            continue
        leaf = batch.images.detach().requires_grad_()
        with torch.enable_grad():
            searched = view(leaf)
        zero = len(batch)  # holds where the model cuts the graph, by detach() or integers
        if searched.requires_grad:
            (gradient,) = torch.autograd.grad(loss(searched, batch.labels).sum(), leaf, allow_unused=True)
            if gradient is not None:  # A quantised layer passes none on, although its answer has a graph.
                zero = int((gradient.flatten(1) == 0).all(dim=1).sum())
        if zero:
            doubts.append(
                Doubt(
                    "zero gradients",
                    f"{zero} of {len(batch)} images have no gradient of the {name} loss: attacks that climb it stand "
                    f"still there.{WAY_OUT if zero == len(batch) else ''}",
                )
            )
    return doubts
