"""Figures that are plots of what an experiment measured, published numbers beside them where the paper prints any.

A row of such an experiment is a point; its name is "SERIES: POINT".
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..report.drawing import STYLE, bars, mark
from ..rundir import write_atomically
from ..statistics import over_seeds
from .experiments import NATURAL, Drawing, shown_name, stated_on
from .experiments import columns as columns_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = "here"
Value = tuple[float, float | None, float | None]
"""A share and its 95 % interval, where there is one."""
OVER = "over images, and from three trainings on over trainings too"
PlottedValues = Mapping[str, Mapping[str, Mapping[str, Value]]]
"""Series -> point -> column -> value."""


def draw_tradeoff(drawing: Drawing, file: Path, *, columns: Sequence[str], label: str | None = None) -> str:
    """Plot accuracies against natural accuracy, with a line through the points of each series in the order of its rows.

    Args:
        drawing: an experiment whose rows are points.
        file: the PNG.
        columns: the columns on the vertical axis, with a plot for each.
        label: the column whose value is written at each point; by default it is the point's name.

    Returns:
        The caption.

    Raises:
        UserError: nothing was measured yet.
    """

    def plot(axes: "Axes", panel: PlottedValues, column: str) -> None:
        for i, (series, points) in enumerate(panel.items()):
            both = {p: values for p, values in points.items() if {NATURAL, column} <= set(values)}
            across, up = ([values[c] for values in both.values()] for c in (NATURAL, column))
            _line(axes, i, series, [100 * x[0] for x in across], up, xerr=_spread(across))
            for point, values in both.items():
                if label is None:
                    said = point
                elif label in values:
                    said = f"{100 * values[label][0]:.0f}"
                else:
                    said = ""
                place = (100 * values[NATURAL][0], 100 * values[column][0])
                axes.annotate(said, place, xytext=(4, 3), textcoords="offset points", fontsize=6)
        axes.set(xlabel="natural accuracy, %", ylabel=f"{shown_name(column)}, %")

    _write(drawing, file, columns, plot)
    words = "the number at a point is its accuracy under " + label if label else "a point's setting beside it"
    return f"Up and to the right is better; {words}; bars are 95 % intervals, {OVER}."


def draw_curves(drawing: Drawing, file: Path, *, columns: Sequence[str], xlabel: str) -> str:
    """Plot accuracies over the numbers that name the points of a series.

    Args:
        drawing: an experiment whose rows are points.
        file: the PNG.
        columns: the columns on the vertical axis, with a plot for each.
        xlabel: what the numbers are.

    Returns:
        The caption.

    Raises:
        UserError: nothing was measured yet.
    """

    def plot(axes: "Axes", panel: PlottedValues, column: str) -> None:
        for i, (series, points) in enumerate(panel.items()):
            there = {float(point): values[column] for point, values in points.items() if column in values}
            _line(axes, i, series, list(there), list(there.values()))
        axes.set(xlabel=xlabel, ylabel=f"{shown_name(column)}, %")

    _write(drawing, file, columns, plot)
    return f"Accuracy over {xlabel}; bars are 95 % intervals, {OVER}."


def _measured(drawing: Drawing) -> PlottedValues:
    values: dict[tuple[str, str], Value] = {}
    for cell, records in drawing.measured.items():
        shares = [r.value for r in records if r.value is not None]
        if shares:
            mean, _, interval, _ = over_seeds(shares, [r.interval for r in records if r.interval])
            values[cell] = (mean, *(interval or (None, None)))
    return _panel(drawing, values)


def _published(drawing: Drawing) -> dict[str, PlottedValues]:
    """The paper's panel by its title; empty where the paper prints no number."""
    name = stated_on(drawing.experiment, drawing.dataset)
    if name is None:
        return {}
    values: dict[tuple[str, str], Value] = {
        (row.name, column): (value / 100, None, None)
        for row in drawing.experiment.rows
        for column, value in row.published.get(name, {}).items()
    }
    return {"paper" if name == drawing.dataset else f"paper, {name}": _panel(drawing, values)}


def _panel(drawing: Drawing, values: Mapping[tuple[str, str], Value]) -> PlottedValues:
    """The points in the order of the rows, since records have the order in which they were made."""
    panel: dict[str, dict[str, dict[str, Value]]] = {}
    for row in drawing.experiment.rows:
        series, _, point = row.name.partition(": ")
        here = {column: value for (name, column), value in values.items() if name == row.name}
        if here:
            panel.setdefault(series, {})[point] = here
    return panel


def _write(
    drawing: Drawing, file: Path, columns: Sequence[str], plot: Callable[["Axes", PlottedValues, str], None]
) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    here = _measured(drawing)
    if not here:
        raise UserError(f"{drawing.experiment.name}: nothing was measured that could be drawn.")
    panels = {**_published(drawing), HERE: here}
    there = columns_of(drawing.experiment, drawing.dataset)
    places = [
        (column, name)
        for column in columns
        for name, panel in panels.items()
        if column in there and (name == HERE or _shows(panel, column))
    ]
    with rc_context(STYLE):
        size = (4.3 * len(places), 3.9)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(1, len(places), squeeze=False)[0]
        for axes, (column, name) in zip(grid, places, strict=True):
            plot(axes, panels[name], column)
            axes.margins(0.12)
            axes.set_title(name, fontsize=9)
        handles: dict[str, Any] = {}
        for axes in grid:
            handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=4)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=120, metadata={"Software": None})
    write_atomically(file, lambda path: path.write_bytes(written.getvalue()))


def _shows(panel: PlottedValues, column: str) -> bool:
    """Whether any point has a value in a column."""
    return any(column in values for points in panel.values() for values in points.values())


def _line(axes: "Axes", i: int, name: str, across: list[float], up: list[Value], xerr: Any = None) -> None:
    axes.errorbar(
        across, [100 * y[0] for y in up], yerr=_spread(up), xerr=xerr, label=name, capsize=2, linewidth=1,
        elinewidth=0.7, markersize=5, **mark(i),
    )  # fmt: skip


def _spread(values: Sequence[Value]) -> list[list[float]] | None:
    """The lengths of error bars below and above, in per cent; None where a value has no interval."""
    intervals = [bars(*value) for value in values]
    if not intervals or any(interval is None for interval in intervals):
        return None
    return [[interval[k][0] for interval in intervals if interval is not None] for k in (0, 1)]
