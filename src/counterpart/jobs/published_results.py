"""What a leaderboard says of a model, read from RobustBench's result JSON and held beside what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..budget import NORMS
from ..errors import UserError
from ..numerals import as_fraction
from ..parsing import read_json
from ..records import WORST, Record
from ..terminal import show
from .model_card import PREFIX
from .stored_evaluations import StoredEvaluation, accuracies_of

FIELDS = (
    "dataset",
    "eps",
    "clean_acc",
    "autoattack_acc",
)  # of RobustBench, without which there is nothing to compare
SAME = 1e-6  # how far two radii may differ


@dataclass(frozen=True)
class PublishedResult:
    """A line of a leaderboard.

    Attributes:
        name: the name of the model there.
        dataset: the data set.
        eps: the radius.
        clean: the accuracy on clean images, in [0, 1].
        robust: the accuracy under AutoAttack, in [0, 1].
        unreliable: whether the leaderboard itself doubts the robust accuracy.
        norm: the norm of the radius, in lower case; None where nothing says it.
    """

    name: str
    dataset: str
    eps: float
    clean: float
    robust: float
    unreliable: bool = False
    norm: str | None = None

    @property
    def budget(self) -> str:
        """The radius and its norm in words."""
        return f"{self.eps:.4g}" if self.norm is None else f"{self.norm} {self.eps:.4g}"


def read_published_result(file: Path) -> PublishedResult:
    """The result in a JSON file of RobustBench's form, as ``model_info`` has them and as evaluations write them.

    Raises:
        UserError: the file cannot be read, or lacks a field or a number.
    """
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {file}: {error}.") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{file} holds no result: expected an object with {', '.join(FIELDS)}.")
    missing = [name for name in FIELDS if content.get(name) is None]
    if missing:
        raise UserError(
            f"{file} says nothing of {missing[0]}: expected {', '.join(FIELDS)}, as RobustBench has them."
        )
    try:
        eps = float(str(as_fraction(content["eps"])))
        clean, robust = (float(content[name]) / 100 for name in ("clean_acc", "autoattack_acc"))
    except (TypeError, ValueError):
        raise UserError(
            f"{file} holds text where numbers belong: eps such as 8/255, accuracies in percent."
        ) from None
    if not 0 <= robust <= 1 or not 0 <= clean <= 1:
        raise UserError(f"{file}: accuracies are percentages from 0 to 100.")
    name = str(content.get("name") or file.stem)
    unreliable = bool(content.get("unreliable"))
    return PublishedResult(
        name, str(content["dataset"]), eps, clean, robust, unreliable, _norm(content, file)
    )


def _norm(content: Mapping[str, Any], file: Path) -> str | None:
    """The norm of a published radius: what a result of this package says, or the folder that RobustBench sorts it into.

    RobustBench's own files do not name it; they lie in model_info/DATASET/Linf and model_info/DATASET/L2.
    """
    ours = content.get("counterpart")
    named = ours.get("norm") if isinstance(ours, Mapping) else None
    for text in (named, content.get("norm"), file.resolve().parent.name):
        if str(text).lower() in NORMS:
            return str(text).lower()
    return None


def compare_with_published(evaluations: Sequence[StoredEvaluation], file: Path, path: Path) -> None:
    """Say how what a run's evaluations measured lies to a published result.

    Args:
        evaluations: the evaluations of the run.
        file: the file of the result.
        path: the run folder, for messages.

    Raises:
        UserError: no evaluation of the run is on this data set within this radius.
    """
    published = read_published_result(file)
    sentences: list[str] = []
    for evaluation in evaluations:
        if fits(evaluation, published):
            sentences += compared(accuracies_of(evaluation), published, evaluation)
    if not sentences:
        raise UserError(
            f"{path} holds no evaluation on {published.dataset} within {published.budget}, which {file} is about."
        )
    doubt = " The leaderboard itself calls the robust accuracy unreliable." if published.unreliable else ""
    show(
        f"{published.name}, as published: {published.clean:.2%} clean, {published.robust:.2%} robust within "
        f"{published.budget}.{doubt}"
    )
    if published.norm is None:
        show(
            f"{file} does not say in which norm: evaluations of any norm with that radius are compared. Put it into a "
            "folder Linf, L2 or L1, as RobustBench does."
        )
    show(*sentences)


def fits(evaluation: StoredEvaluation, published: PublishedResult) -> bool:
    """Whether an evaluation has the data set and the radius of a published result, and its norm where it says one."""
    eps = evaluation.identity["eps"]
    if published.norm not in (None, evaluation.identity["norm"]):
        return False
    same_data = evaluation.identity["data"][0] == published.dataset
    return same_data and isinstance(eps, float) and abs(eps - published.eps) <= SAME


def compared(
    accuracies: Sequence[Record], published: PublishedResult, evaluation: StoredEvaluation
) -> list[str]:
    """A sentence for the clean accuracy and one for the worst case, each beside the published number."""
    names = ", ".join(dict.fromkeys(line for _, line in evaluation.identity["attacks"]))
    by_name = {record.name: record for record in accuracies}
    pairs = (
        ("clean", f"{PREFIX}clean", published.clean),
        (f"{WORST} of {names}", f"{PREFIX}{WORST}", published.robust),
    )
    sentences = []
    for title, key, value in pairs:
        record = by_name.get(key)
        if record is None or record.value is None or record.interval is None:
            continue
        low, high = record.interval
        where = "above" if value > high else "below"
        if low <= value <= high:
            where = "within"
        sentences.append(
            f"{evaluation.folder.name}, {title}: {record.value:.2%} ({low:.2%} to {high:.2%}, n = {record.n:,}); the "
            f"published {value:.2%} lies {where} the interval."
        )
    return sentences
