"""The images and the budget of an evaluation, in words: only rows of one setting may be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..numerals import readable
from ..records import WORST, Record
from .runs import Evaluation, size_text

OF_THESE_IMAGES = "95 % interval of these images"
"""The head of a column: what attacks that were tried on a sample would leave of the judged images, were all tried."""

NORMS = {"linf": "ℓ∞", "l2": "ℓ2", "l1": "ℓ1", "l0": "ℓ0"}


@dataclass(frozen=True)
class Setting:
    """The images and the budget of an evaluation. Only rows of the same setting may be compared.

    Attributes:
        data: the name of the data set.
        split: the split that was judged.
        norm: the norm of the budget: "linf", "l2" or "l1".
        eps: the radius of the budget.
        size: the size of the images in words; "" where older records lack it.
        search: how the attacks searched, in words; "" for the usual way.
        folds: the folds of a cross-validation, in words; "" for none.
    """

    data: str | None
    split: str | None
    norm: str | None
    eps: float | None
    size: str = ""
    search: str = ""
    folds: str = ""

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Setting":
        """The setting of an evaluation."""
        details = evaluation.details
        data, split, norm, eps = (details.get(name) for name in ("data", "split", "norm", "eps"))
        return cls(data, split, norm, eps, size_text(details), _search(details))

    @property
    def budget(self) -> str:
        """The budget in words, such as "ℓ∞ ≤ 8/255"."""
        if self.eps is None:
            return "an unknown budget"
        words = [str(NORMS.get(str(self.norm), self.norm)), "≤", radius_text(self.eps, self.norm)]
        return "\N{NO-BREAK SPACE}".join(words)

    def __str__(self) -> str:
        folds = f" ({self.folds})" if self.folds else ""
        return f"{self.data} {self.split}{folds}{self.size}, {self.budget}{self.search}"


def union_in_words(union: Mapping[str, Record]) -> tuple[str, list[str]]:
    """The images of an evaluation against a union of budgets, in words, and the names of its columns with the radii.

    Args:
        union: {"clean": record, "linf": record, ..., "worst case": record}.
    """
    record = union[WORST]
    details = record.details
    radii = _radii_of(details)
    columns = []
    for name in union:
        radius = radii.get(name)
        columns.append(name if radius is None else Setting(None, None, name, radius).budget)
    weights = f", {details['weights']} weights" if details.get("weights") else ""
    images = f"{details.get('data')} {details.get('split')}{size_text(details)}"
    return f"{images}, n = {record.n or 0:,}{weights}{_search(details)}", columns


def budgets_in_words(details: Mapping[str, Any]) -> str:
    """The budgets of a union in words, such as "ℓ∞ ≤ 8/255 and ℓ2 ≤ 0.5"; "" where there is one budget."""
    if not isinstance(details.get("eps"), list):
        return ""
    return " and ".join(
        Setting(None, None, norm, radius).budget for norm, radius in _radii_of(details).items()
    )


def _radii_of(details: Mapping[str, Any]) -> dict[str, float]:
    """The radius of each norm of a union."""
    return dict(zip(str(details["norm"]).split(","), details["eps"], strict=True))


def _search(details: Mapping[str, Any]) -> str:
    """How the attacks searched, in words that follow the budget.

    The text is "" for the usual way: the project's own attacks, in float32, with one radius for all pixels.
    """
    protocol = f", protocol {details['protocol']}" if details.get("protocol") is not None else ""
    if details.get("eps_low") is not None:
        return f" and {radius_text(details['eps_low'])} by its mask{_arithmetic(details)}{protocol}"
    return f"{_arithmetic(details)}{protocol}"


def random_in_words(details: Mapping[str, Any]) -> str:
    """How a model whose answers are random was judged, such as ", 20 draws of 3 votes, eot 10"; "" for others."""
    if details.get("fixed_noise"):
        return ", fixed noise"
    words = []
    if "draws" in details or "votes" in details:
        draws, votes = details.get("draws", 1), details.get("votes", 1)
        words.append(f"{draws} draw{'s' * (draws > 1)}" + (f" of {votes} votes" if votes > 1 else ""))
    if "eot" in details:
        words.append(f"eot {details['eot']}")
    return "".join(f", {clause}" for clause in words)


def sample_in_words(details: Mapping[str, Any]) -> str:
    """Which attacks were tried on a sample, such as ", fab-t and square on at most 500 survivors"; "" for none."""
    sampled = details.get("sampled")
    if not sampled:
        return ""
    many = (
        "as many survivors as it takes"
        if sampled["count"] == "auto"
        else f"at most {sampled['count']:,} survivors"
    )
    return f", {' and '.join(sampled['dear'])} on {many}"


def interval_title(details: Mapping[str, Any]) -> str:
    """The head of a column of intervals, which says what they are over."""
    by_draws = "draws" in details or "votes" in details
    return f"95 % interval over images{' and draws' if by_draws else ''}"


def _arithmetic(details: Mapping[str, Any]) -> str:
    """Which attacks computed, and how exactly, in words; "" for the project's own in float32."""
    return random_in_words(details) + sample_in_words(details) + _precision(details)


def _precision(details: Mapping[str, Any]) -> str:
    if details.get("engine") == "official":
        return ", by the published AutoAttack"
    precision = details.get("precision") or "float32"
    return "" if precision == "float32" else f", searched in {precision} and ended in float32"


def radius_text(eps: float, norm: str | None = "linf") -> str:
    """A radius as people write it: "8/255" or "0.1" for ℓ∞, and a plain number for other norms."""
    if norm != "linf":
        return f"{eps:.4g}"
    words = readable(float(f"{eps:.6g}"))  # pictures hold it as float32
    return words if len(words) < 8 else f"{eps * 255:.3g}/255"
