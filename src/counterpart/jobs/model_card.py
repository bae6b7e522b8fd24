"""The card of a shared model: what it is, how it was made and judged, and what it does not promise, as Markdown."""

import json
from collections.abc import Mapping, Sequence

from .. import build, records
from ..numerals import readable
from ..records import WORST, Record
from .stored_evaluations import StoredEvaluation, accuracies_of
from .target import Target

NUMBERS = "## Numbers"
PREFIX = "accuracy/"
KNOWS = {
    "linf": "each value of a pixel may change by at most the radius",
    "l2": "the Euclidean length of the change is at most the radius",
    "l1": "the sum of the changes is at most the radius",
}
LIMITS = (
    "An accuracy under attack is an upper bound: another attack may find more, and none of them confirms robustness.",
    "The numbers hold for the budgets, the images and the weights above. They say nothing of other norms, larger "
    "radii, other images, blur, noise or patches, and nothing of classes that are not listed.",
    "Images from elsewhere are no draw from the images above: the intervals are over the draw of images alone.",
)


def write_card(
    target: Target,
    evaluations: Sequence[StoredEvaluation],
    doubts: Mapping[str, str],
    address: str,
    licence: str | None,
) -> str:
    """The Markdown of a model card.

    Args:
        target: the model, and the images of its data set.
        evaluations: what was judged, each with the images that were.
        doubts: the doubts that its evaluations raised, by name.
        address: how ``counterpart.load`` finds the model.
        licence: the licence of the weights; None where the owner has not said one.
    """
    parts = [
        _front_matter(licence),
        f"# {target.run.name}",
        _verdict(target, evaluations),
        _data(target),
        _recipe(target),
        _threat_model(evaluations),
        NUMBERS,
        *("\n".join(lines_of(evaluation)) for evaluation in evaluations),
        _doubts(doubts),
        "\n".join(["## Limits", "", *(f"- {sentence}" for sentence in LIMITS)]),
        _licences(target, licence),
        _use(target, address),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def lines_of(evaluation: StoredEvaluation) -> list[str]:
    """The lines that a card has of an evaluation, derived from its ledger: ``verify`` looks for them in the card."""
    images, identity = evaluation.target.images, evaluation.identity
    head = (
        f"{images.name}, {images.split}, {identity['norm']} {_radii(identity['eps'])}, n = {identity['n']:,}, ledger "
        f"`{evaluation.digest}`:"
    )
    rows = [
        f"| {_line(record)} | {_share(record, 2)} | {_interval(record)} | {record.n:,} |"
        for record in accuracies_of(evaluation)
    ]
    return [head, "", "| attack | accuracy | 95 % interval | images |", "|---|---|---|---|", *rows]


def rows_of_numbers(card: Sequence[str]) -> list[str]:
    """The rows of the tables that stand under the heading of the numbers, of a card's lines."""
    if NUMBERS not in card:
        return []
    rows = []
    for line in card[card.index(NUMBERS) + 1 :]:
        if line.startswith("## "):
            break
        if line.startswith("|"):
            rows.append(line)
    return rows


def _line(record: Record) -> str:
    """The name of a line of the table."""
    return record.name.removeprefix(PREFIX) + (" (estimate)" if "estimate" in record.details else "")


def _share(record: Record, digits: int) -> str:
    """An accuracy in percent."""
    return "none" if record.value is None else f"{record.value:.{digits}%}"


def _interval(record: Record) -> str:
    """An interval in percent."""
    if record.interval is None:
        return "none"
    return f"{record.interval[0]:.2%} to {record.interval[1]:.2%}"


def _radii(eps: float | Sequence[float]) -> str:
    """One radius, or several."""
    values = [eps] if isinstance(eps, float) else eps
    return ", ".join(readable(value) for value in values)


def _front_matter(licence: str | None) -> str:
    """What the hub reads of a card."""
    tags = ["image-classification", "adversarial-robustness", "counterpart"]
    lines = [
        "---",
        "library_name: counterpart",
        "pipeline_tag: image-classification",
        f"tags: {json.dumps(tags)}",
    ]
    if licence is not None:
        lines.append(f"license: {json.dumps(licence)}")
    return "\n".join([*lines, "---"])


def _verdict(target: Target, evaluations: Sequence[StoredEvaluation]) -> str:
    """What was found, in a sentence for each evaluation."""
    sentences = []
    for evaluation in evaluations:
        by_name = {record.name: record for record in accuracies_of(evaluation)}
        clean, worst = by_name.get(f"{PREFIX}clean"), by_name.get(f"{PREFIX}{WORST}")
        if clean is None or clean.value is None:
            continue
        images = evaluation.target.images
        whom = f"{len(images):,} {images.split} images of {images.name}"
        sentence = f"Of {whom} it gets {_share(clean, 1)} right"
        if worst is not None and worst.value is not None and worst.interval is not None:
            radius = _radii(evaluation.identity["eps"])
            sentence += (
                f", and {_share(worst, 1)} ({worst.interval[0]:.1%} to {worst.interval[1]:.1%}) under every attack "
                f"that was tried within {evaluation.identity['norm']} {radius}"
            )
        sentences.append(f"{sentence}.")
    if not sentences:
        sentences = ["It was not evaluated: nothing is known of its accuracy or its robustness."]
    return " ".join([f"A classifier of images into {target.classes:,} classes.", *sentences])


def _data(target: Target) -> str:
    """The images: which, how they are prepared, and the classes."""
    channels, height, width = target.images.shape
    names = list(target.images.classes)
    listed = ", ".join(names[:20]) + (f", ... ({len(names):,} in all)" if len(names) > 20 else "")
    return (
        f"## Data\n\nData set: {target.data}. Images of {channels} x {height} x {width} with values in [0, 1]; the "
        "normalisation is inside the model. preprocessing.json says how images come to this size.\n\n"
        f"Classes: {listed}.{_merging(target)}"
    )


def _merging(target: Target) -> str:
    """That outputs of the network are merged into its classes, if so."""
    if target.class_map is None or target.class_map.groups is None:
        return ""
    count = sum(map(len, target.class_map.groups))
    return (
        f" They are answered by {count:,} outputs of the network: the answer is the class of the largest of them. What "
        "counterpart.load gives merges them in this way."
    )


def _recipe(target: Target) -> str:
    """How the model was made."""
    config = target.config
    network = f"Network: {config.model.name}."
    if target.header is None:
        return f"## Recipe\n\n{network} It was trained elsewhere; nothing of its training is known here."
    train, attack = config.train, config.attack
    parts = [f"Method: {build.name_method(config)}.", network]
    parts.append(f"{train.epochs} epochs of batches of {train.batch_size}, seed {config.seed}.")
    if train.method != "clean":
        parts.append(
            f"Trained within {attack.norm} {readable(attack.eps)}; steps of the attack: {attack.steps}."
        )
    parts.append("config.yaml has every setting.")
    return "## Recipe\n\n" + " ".join(parts)


def _threat_model(evaluations: Sequence[StoredEvaluation]) -> str:
    """Whom the numbers hold against."""
    if not evaluations:
        return ""
    lines = [
        "The attacker knows the weights, changes a single image after it was taken, and is done when the model answers "
        "any wrong class. An image counts as fooled where the model itself, in float32, answers wrongly within the "
        "budget.",
        "",
    ]
    for evaluation in evaluations:
        identity = evaluation.identity
        names = dict.fromkeys(line for _, line in identity["attacks"])
        lines.append(
            f"- {identity['norm']} {_radii(identity['eps'])} ({KNOWS.get(identity['norm'], 'as its name says')}): "
            f"{', '.join(names) or 'no attack'}."
        )
    return "\n".join(["## Threat model", "", *lines])


def _doubts(doubts: Mapping[str, str]) -> str:
    """What makes the numbers doubtful."""
    lines = [f"- {name}: {text}" for name, text in doubts.items()]
    return "\n".join(["## Doubts", "", *(lines or ["The checks raised none, which proves nothing."])])


def _licences(target: Target, licence: str | None) -> str:
    """What others may do with it."""
    said = licence or "not stated; ask whoever shared it"
    images = target.images.name
    return (
        f"## Licences\n\nWeights: {said}. Where the folder holds images of {images}, as they are or attacked, the "
        "terms of that data set hold for them. The code that reads the folder, Counterpart, is under the MIT licence."
    )


def _use(target: Target, address: str) -> str:
    """How to load and to verify it."""
    about = records.environment()
    lines = [
        "## Use",
        "",
        "    import counterpart",
        f'    model = counterpart.load("{address}")  # images (B, C, H, W) in [0, 1] -> logits (B, {target.classes})',
        "",
        "## How to verify",
        "",
        "    counterpart verify DIR",
        "",
        "DIR is this folder. Every claim is derived again from the weights, the images and the attacked images in it, "
        "and the numbers and hashes above are compared with the ledgers. With `--data.root` the images are those of "
        "the data set instead.",
        "",
        f"Made with torch {about['torch']} on {about['hardware']}.",
    ]
    return "\n".join(lines)
