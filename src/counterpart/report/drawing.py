"""How the page draws: pictures as SVG and PDF, legible at phone width, in colours that colour-blind eyes tell apart."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito 2008, without the yellow that is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#333333")
FORMATS = (("svg", "image/svg+xml", "Date"), ("pdf", "application/pdf", "CreationDate"))
"""The formats of a picture: its name, its kind as a data URI, and the metadata that hold its date."""
MOST_AT_ENDS, LONGEST_AT_END = 6, 18
"""So many names of so many characters find room at the ends of lines; more of them stand below."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c959f",
    "axes.labelcolor": "#1f2328",
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "xtick.color": "#424a53",
    "ytick.color": "#424a53",
    "legend.frameon": False,
    "legend.fontsize": 10,
    "svg.hashsalt": "counterpart",  # so that the same records give the same bytes
    "text.parse_math": False,  # so that a "$" in a name stays a dollar
}


@dataclass(frozen=True)
class Plot:
    """A picture for the page and for papers.

    Attributes:
        name: the name of its files when they are taken along, without an ending.
        uri, pdf: the picture as data URIs of an SVG and of a PDF file.
        caption: the words below it.
        alt: the words for those who cannot see it.
    """

    name: str
    uri: str
    pdf: str
    caption: str
    alt: str


def mark(i: int) -> dict[str, Any]:
    """The colour and the marker of the i-th row or series."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}


def bars(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    """The lengths of matplotlib's error bars for an interval, in per cent."""
    if low is None or high is None:
        return None
    return [[100 * max(value - low, 0)], [100 * max(high - value, 0)]]


def draw_point(axes: "Axes", i: int, label: str, x: float, y: float, **error_bars: Any) -> None:
    """Draw the i-th row as a point with its error bars, ``xerr`` and ``yerr``; axes do not cut it."""
    look = {"capsize": 3, "markersize": 8, "linestyle": "none", "clip_on": False, **mark(i)}
    axes.errorbar(x, y, label=short(label), **look, **error_bars)


def draw_chance(axes: "Axes", chances: Iterable[float | None], side: str = "right") -> None:
    """Let an axis of accuracies begin at 0, and draw what chance reaches."""
    for chance in {chance for chance in chances if chance is not None}:
        axes.axhline(100 * chance, color="#a8320a", linestyle=(0, (2, 2)), linewidth=1.2, zorder=1)
        place = (0.99 if side == "right" else 0.01, 100 * chance)
        axes.annotate(
            "chance",
            place,
            xycoords=("axes fraction", "data"),
            ha=side,
            va="bottom",
            fontsize=9,
            color="#a8320a",
        )
    axes.set_ylim(bottom=0)  # at last: from here on the axis no longer grows with what is drawn


def begin_at_zero(axes: "Axes") -> None:
    """Let the horizontal axis begin at 0 and leave room behind the last point, whose mark else is cut."""
    axes.set_xlim(0, 1.06 * axes.get_xlim()[1])


def name_lines(figure: "Figure", axes: "Axes") -> None:
    """Write the name of each line at its end; below the axes where names are many or long."""
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    names = [str(line.get_label()) for line in named]
    if len(names) > MOST_AT_ENDS or max(map(len, names)) > LONGEST_AT_END:
        name_points(figure, axes)
        return
    named.sort(key=_last_of)
    for line, height in zip(named, _spread(list(map(_last_of, named)), *axes.get_ylim()), strict=True):
        axes.annotate(
            str(line.get_label()),
            (1.02, height),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=10,
            color=line.get_color(),
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Rising heights moved apart so that words stand beside none but their own, and none above the axis."""
    least, spread = 0.075 * (high - low), list(heights)
    for i in range(1, len(spread)):
        spread[i] = max(spread[i], spread[i - 1] + least)
    ceiling = high
    for i in reversed(range(len(spread))):
        spread[i] = min(spread[i], ceiling)
        ceiling = spread[i] - least
    return spread


def _last_of(line: "Line2D") -> float:
    """The height at which a line ends."""
    return float(np.asarray(line.get_ydata(), dtype=float)[-1])


def short(label: str) -> str:
    """A label as a legend has room for it: the middle of a long one is left out."""
    return label if len(label) <= 42 else f"{label[:20]}…{label[-21:]}"


def name_points(figure: "Figure", axes: "Axes", height: float = 3.5) -> None:
    """Write the names of points or lines below the axes, whose figure is so high, in inches, without them."""
    from matplotlib.container import Container

    handles, labels = axes.get_legend_handles_labels()
    handles = [h[0] if isinstance(h, Container) else h for h in handles]  # the marker, without its error bars
    columns = 1 if max(map(len, labels)) > 22 else 2
    figure.set_figheight(height + 0.2 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def plot(name: str, draw: "Callable[[Figure], None]", caption: str, alt: str) -> Plot:
    """What a function draws into a figure, as a picture with its words."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.3, 3.7), layout="constrained")
        draw(figure)
        svg, pdf = [_data_uri(figure, *form) for form in FORMATS]
    return Plot(name, svg, pdf, caption, alt)


def _data_uri(figure: "Figure", form: str, kind: str, undated: str) -> str:
    """The data URI of a figure in a format, without the date that would make each page another."""
    file = io.BytesIO()
    figure.savefig(file, format=form, metadata={undated: None})
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
