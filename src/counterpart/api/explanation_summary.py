"""What an explanation of many images says: means for each class, and how often the maps point at the object."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..saliency.agreement import area
from ..statistics import wilson
from .explanation_tensors import ExplanationTensors


def names_of_classes(explanation: ExplanationTensors, classes: Sequence[str] | None) -> list[str]:
    """The name of each class; its number where nobody named it.

    Raises:
        UserError: there are more or fewer names than classes.
    """
    count = explanation.clean.shape[1]
    if classes is None:
        return [str(number) for number in range(count)]
    if len(classes) != count:
        raise UserError(f"{len(classes)} names of classes were given for {count} classes.")
    return list(classes)


def summarise(explanation: ExplanationTensors, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Means over the images of each class that was explained, and over all: a mapping for each, in that order."""
    changed = (explanation.clean.argmax(dim=1) != explanation.fooled.argmax(dim=1)).float()
    columns = {
        "answers that change": changed,
        "overlap of masks": explanation.overlap,
        "rank correlation of maps": explanation.correlation,
        "deletion": None if explanation.deletion is None else area(explanation.deletion),
        "insertion": None if explanation.insertion is None else area(explanation.insertion),
    }
    return [
        {
            "class": name,
            "images": int(here.sum()),
            **{title: _mean_where(values, here) for title, values in columns.items()},
        }
        for name, here in _groups(explanation, classes)
    ]


def pointing_table(explanation: ExplanationTensors, classes: Sequence[str]) -> list[dict[str, Any]]:
    """How often the maps of each class, and of all, point into the object, before and after the attack.

    ``images`` are those that show an object by the masks that were given. Intervals are Wilson's, 95 %. ``chance`` is
    the mean share of these images that the object takes, which a point at random would hit. Empty without masks or
    maps; a class of which no image shows an object is left out.
    """
    clean, attacked, shares = explanation.pointing, explanation.attacked_pointing, explanation.object_share
    if clean is None or attacked is None or shares is None:
        return []
    rows = []
    for name, group in _groups(explanation, classes):
        here = group & shares.isfinite()
        count = int(here.sum())
        if count == 0:
            continue
        row: dict[str, Any] = {"class": name, "images": count}
        for title, hits in (("pointing", clean), ("pointing under attack", attacked)):
            inside = int(hits[here].sum())
            row[title] = inside / count
            row[f"{title}, interval"] = wilson(inside, count)
        rows.append(row | {"chance": float(shares[here].mean())})
    return rows


def _groups(explanation: ExplanationTensors, classes: Sequence[str]) -> list[tuple[str, Tensor]]:
    """Which images (B,) are of each class that was explained, and at the end all, where there are several classes."""
    groups = [(classes[k], explanation.labels == k) for k in sorted(set(explanation.labels.tolist()))]
    if len(groups) > 1:
        groups.append(("all", torch.ones_like(explanation.labels, dtype=torch.bool)))
    return groups


def _mean_where(values: Tensor | None, here: Tensor) -> float | None:
    """The mean of some values, NaN passed over; None where there is none."""
    if values is None:
        return None
    some = values.cpu()[here.cpu()]
    some = some[some.isfinite()]
    return float(some.mean()) if len(some) else None
