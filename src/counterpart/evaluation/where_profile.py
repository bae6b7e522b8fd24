"""Where-profiles: what stands if the attacker may move a region alone, beside random regions of the same area.

The area between two curves of accuracy against the share of pixels that may move is one number. For image i, with
s_i(K, x) = 1 where it stands if the attacker may move the share x of its pixels of kind K, and measured shares
0 = x_0 < x_1 < ... < x_m = 1, the area under its curve is by trapezoids

    A_i(K) = sum over j of (x_{j+1} - x_j) (s_i(K, x_j) + s_i(K, x_{j+1})) / 2.

Share 0 is the clean answer and share 1 the plain attack, which all kinds have in common. "bottom - top" is the mean
over images of A_i(bottom) - A_i(top): it is positive where a map tells weak pixels from strong ones. Its expectation
is 0 if, given model and image, each ranking of the pixels is as likely as its reverse: then the map knows nothing.
"other - top" has in the first place the mean over draws of another image's top, and "shifted - top" that top shifted.
Their expectation is 0 where the map knows nothing of its own image, and nothing of where images in general are weak.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

from ..statistics import Difference, mean_difference, mean_share, wilson
from .regions import BOTTOM, CONTROLS, EVERYTHING, OTHER, SHIFTED, TOP

AREAS: Mapping[str, tuple[str, str]] = {
    "bottom - top": (BOTTOM, ""),
    "other - top": (TOP, OTHER),
    "shifted - top": (TOP, SHIFTED),
}
"""The areas between curves: the kind and the control of the curve above, and below it always the top of the map."""


@dataclass(frozen=True)
class RegionOutcome:
    """What attacks that were kept to one region left standing.

    Attributes:
        name, kind, share, control, draw: those of the region.
        positions: the places of the images that have the region.
        stands: whether each of them is classified correctly, clean and after every attack.
        right: whether each of them is classified correctly clean.
        pixels: the mean share of the pixels that may move.
    """

    name: str
    kind: str
    share: float | None
    control: str
    draw: int
    positions: Sequence[int]
    stands: Sequence[bool]
    right: Sequence[bool]
    pixels: float


@dataclass(frozen=True)
class RandomRegions:
    """The accuracy if the attacker may move random regions like a region.

    Attributes:
        value: the mean over images and draws.
        low, high: its 95 % interval over images and draws.
        draws: the number of draws.
        difference: the accuracy of the region minus this, image by image.
    """

    value: float
    low: float
    high: float
    draws: int
    difference: Difference


@dataclass(frozen=True)
class WhereRow:
    """A line of a where-profile.

    Attributes:
        region: the name of the region, such as "top 25%".
        kind: its kind.
        share: the share of the pixels that was asked for; None where the annotation decides.
        pixels: the mean share of the pixels that may move.
        n: the number of images that have the region.
        clean: their clean accuracy.
        everything: their accuracy under the plain attack.
        value: their accuracy if the attacker may move this region alone.
        low, high: its 95 % interval over images.
        random: "other" and "shifted" -> the accuracy for random regions of the same area.
        per_class: class -> how many of its images stand, and how many there are.
    """

    region: str
    kind: str
    share: float | None
    pixels: float
    n: int
    clean: float
    everything: float
    value: float
    low: float
    high: float
    random: Mapping[str, RandomRegions] = field(default_factory=dict)
    per_class: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class AreaBetween:
    """The area between two curves of accuracy against the share of pixels that may move.

    Attributes:
        name: one of ``AREAS``.
        difference: its mean over images, in [-1, 1], and the interval of that.
        n: the number of images.
        shares: the shares that were measured, 0 and 1 among them.
        per_class: class -> the mean of its images, and how many there are.
    """

    name: str
    difference: Difference
    n: int
    shares: Sequence[float]
    per_class: Mapping[str, tuple[float, int]]


def region_rows(outcomes: Sequence[RegionOutcome], class_of: Sequence[str]) -> list[WhereRow]:
    """A line for each region, in the order of the outcomes, whose first is that of everything.

    Args:
        outcomes: of all regions and their random regions.
        class_of: the name of the true class of each image.
    """
    plain = outcomes[0]
    assert plain.kind == EVERYTHING
    rows = []
    for outcome in outcomes:
        if outcome.control:
            continue
        n = len(outcome.positions)
        low, high = wilson(sum(outcome.stands), n)
        counts: dict[str, tuple[int, int]] = {}
        for position, stands in zip(outcome.positions, outcome.stands, strict=True):
            standing, all_of_class = counts.get(class_of[position], (0, 0))
            counts[class_of[position]] = standing + stands, all_of_class + 1
        rows.append(
            WhereRow(
                outcome.name,
                outcome.kind,
                outcome.share,
                outcome.pixels,
                n,
                clean=fmean(outcome.right),
                everything=fmean(plain.stands[position] for position in outcome.positions),
                value=fmean(outcome.stands),
                low=low,
                high=high,
                random=_random_regions(outcome, outcomes),
                per_class=counts,
            )
        )
    return rows


def areas_between(outcomes: Sequence[RegionOutcome], class_of: Sequence[str]) -> list[AreaBetween]:
    """The areas between curves, as far as their regions were judged."""
    shares = sorted(
        {outcome.share for outcome in outcomes if outcome.kind == TOP and outcome.share is not None}
    )
    if not shares:
        return []
    measured = [0.0, *shares, 1.0]
    below = _areas_under(outcomes, TOP, "", shares)
    areas = []
    for name, (kind, control) in AREAS.items():
        above = _areas_under(outcomes, kind, control, shares)
        if above is None or below is None:
            continue
        differences = [high - low for high, low in zip(above, below, strict=True)]
        by_class: dict[str, list[float]] = {}
        for name_of_class, number in zip(class_of, differences, strict=True):
            by_class.setdefault(name_of_class, []).append(number)
        per_class = {known: (fmean(numbers), len(numbers)) for known, numbers in sorted(by_class.items())}
        areas.append(AreaBetween(name, mean_difference(differences), len(differences), measured, per_class))
    return areas


def _random_regions(region: RegionOutcome, outcomes: Sequence[RegionOutcome]) -> dict[str, RandomRegions]:
    """The random regions of a region, by control."""
    random = {}
    for control in CONTROLS:
        draws = [
            outcome.stands
            for outcome in outcomes
            if outcome.name == region.name and outcome.control == control
        ]
        if draws:
            shares = [fmean(of_image) for of_image in zip(*draws, strict=True)]
            value, (low, high) = mean_share(shares, len(draws))
            random[control] = RandomRegions(value, low, high, len(draws), _minus(region.stands, shares))
    return random


def _minus(stands: Sequence[bool], shares: Sequence[float]) -> Difference:
    """The accuracy of a region minus that of random regions, image by image."""
    return mean_difference([stood - share for stood, share in zip(stands, shares, strict=True)])


def _areas_under(
    outcomes: Sequence[RegionOutcome], kind: str, control: str, shares: Sequence[float]
) -> list[float] | None:
    """The area under the curve of each image, by trapezoids; None where a share was not judged."""
    plain = outcomes[0]
    curve = [[float(right) for right in plain.right]]
    for share in shares:
        draws = [
            outcome.stands
            for outcome in outcomes
            if (outcome.kind, outcome.control, outcome.share) == (kind, control, share)
        ]
        if not draws:
            return None
        curve.append([fmean(of_image) for of_image in zip(*draws, strict=True)])
    curve.append([float(stands) for stands in plain.stands])
    return trapezoids([0.0, *shares, 1.0], curve)


def trapezoids(shares: Sequence[float], curve: Sequence[Sequence[float]]) -> list[float]:
    """The area under each image's curve.

    Args:
        shares: rising, from 0 to 1.
        curve: at each share a number for each image.
    """
    areas = [0.0] * len(curve[0])
    for (low, high), (before, after) in zip(pairwise(shares), pairwise(curve), strict=True):
        for image, (first, second) in enumerate(zip(before, after, strict=True)):
            areas[image] += (high - low) * (first + second) / 2
    return areas
