"""The page of an explanation: each image with its map, radii and attacked form, and how far the explanation moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .class_names import called

WIDTH, HEIGHT, MARGIN = 320, 170, 28  # of the figure of curves, in its own units
LAST = WIDTH - 64  # where curves end, and their labels begin
APART = 13  # labels are at least as far from each other


@dataclass(frozen=True)
class ExplainedImage:
    """An image on the page.

    Attributes:
        row: its line of the table.
        pictures: in pairs that belong side by side, what each picture shows, and its path beside the page.
        small: whether the pictures have so few pixels that each is to be seen as a square.
    """

    row: Mapping[str, Any]
    pictures: Sequence[Mapping[str, str]]
    small: bool = False


def render_page(
    images: Sequence[ExplainedImage],
    classes: Sequence[Mapping[str, Any]],
    pointing: Sequence[Mapping[str, Any]],
    curves: tuple[Sequence[float], Sequence[float]],
) -> str:
    """The HTML of the page, which shows the pictures beside it and needs no script and no network.

    Args:
        images: the images, in order.
        classes: means for each class, and over all at the end.
        pointing: how often maps point at the object, likewise; empty without masks.
        curves: the mean probability while pixels vanish, and while they come back; empty without maps.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(called=called, percent=_percent, number=_number, interval=_interval)
    template = environment.from_string(
        Path(__file__).with_name("explanation.html").read_text(encoding="utf-8")
    )
    answers = len({shown.row["prediction"] for shown in images})
    changed = sum(shown.row["prediction"] != shown.row["prediction under attack"] for shown in images)
    return template.render(
        images=images, classes=classes, pointing=pointing, changed=changed, answers=answers,
        deletion=points_of(curves[0]), insertion=points_of(curves[1]), ends=_heights_of_labels(curves), last=LAST,
        width=WIDTH, height=HEIGHT, margin=MARGIN,
    )  # fmt: skip


def points_of(curve: Sequence[float]) -> str:
    """The points of a curve of probabilities in the figure, as SVG writes them."""
    last = max(1, len(curve) - 1)
    points = []
    for place, value in enumerate(curve):
        x = MARGIN + (LAST - MARGIN) * place / last
        points.append(f"{x:.1f},{height_of(value):.1f}")
    return " ".join(points)


def _heights_of_labels(curves: tuple[Sequence[float], Sequence[float]]) -> list[float]:
    """Where the label of each curve lies: at its end, but not on the other label; nothing where there are no curves."""
    if not all(curves):
        return []
    ends = [height_of(curve[-1]) for curve in curves]
    if abs(ends[0] - ends[1]) >= APART:
        return ends
    middle = sum(ends) / 2
    ends = [middle - APART / 2, middle + APART / 2]
    return ends if curves[0][-1] >= curves[1][-1] else ends[::-1]


def height_of(value: float) -> float:
    """Where a probability lies in the figure, from its upper edge."""
    return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * value


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.1%} to {ends[1]:.1%}"


def _number(value: float | None) -> str:
    return "none" if value is None or value != value else f"{value:.2f}"
