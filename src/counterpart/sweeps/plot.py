"""The trade-off of a sweep as a picture: natural against robust accuracy, with the front."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..report.drawing import COLOURS, STYLE, bars
from ..rundir import write_atomically
from .trials import SweptTrial, front_of, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FRONT, _OTHERS = COLOURS[0], "#8c959f"
LONGEST_LABEL = 12  # characters of a value that stand beside its point


def draw_tradeoff(trials: Sequence[SweptTrial], file: Path) -> bool:
    """Write a PNG of the trained trials, and return whether there are any.

    A point is named by its value where one setting varies, and else by the number of the trial.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trained = [trial for trial in trials if trial.state == "trained"]
    if not trained:
        return False
    front = front_of(trained)
    others = [trial for trial in trained if trial not in front]
    with rc_context(STYLE):
        figure = Figure(figsize=(6, 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        _points(axes, others, "other trials", color=_OTHERS, marker="o", markerfacecolor="white", alpha=0.8)
        _points(
            axes,
            front,
            "front: no trial is better in both",
            color=_FRONT,
            marker="o",
            linestyle="-",
            zorder=3,
        )
        axes.margins(0.1)
        axes.set_xlabel("natural validation accuracy, %")
        axes.set_ylabel("robust validation accuracy, %")
        figure.legend(loc="outside lower center", ncols=2)
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=120, metadata={"Software": None})
    write_atomically(file, lambda path: path.write_bytes(written.getvalue()))
    return True


def _points(
    axes: "Axes", trials: Sequence[SweptTrial], label: str, linestyle: str = "none", **style: Any
) -> None:
    if not trials:
        return
    places = [(trial.natural or 0.0, trial.robust or 0.0) for trial in trials]
    across, up = zip(*places, strict=True)
    axes.errorbar(
        [100 * value for value in across], [100 * value for value in up], xerr=_spread(trials, across),
        yerr=_spread(trials, up), label=label, linestyle=linestyle, elinewidth=0.7, capsize=2, markersize=7, **style,
    )  # fmt: skip
    for trial, place in zip(trials, places, strict=True):
        axes.annotate(
            _label(trial), (100 * place[0], 100 * place[1]), xytext=(5, 4), textcoords="offset points",
            fontsize=8, color=style["color"] if label.startswith("front") else "#57606a",
        )  # fmt: skip


def _spread(trials: Sequence[SweptTrial], values: Sequence[float]) -> list[list[float]]:
    """The lengths of error bars below and above, in per cent."""
    below, above = [], []
    for trial, value in zip(trials, values, strict=True):
        lengths = bars(value, *trial.interval(value)) or [[0.0], [0.0]]
        below.append(lengths[0][0])
        above.append(lengths[1][0])
    return [below, above]


def _label(trial: SweptTrial) -> str:
    if len(trial.settings) != 1:
        return str(trial.number)
    [value] = trial.settings.values()
    short = shorten(value)
    return short if len(short) <= LONGEST_LABEL else f"{short[:LONGEST_LABEL]}…"
